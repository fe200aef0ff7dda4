//! `exosphere run start`: starts a run of a graph.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use exosphere_domain::ids::{Name, RunId};
use reqwest::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::client::Answer;
use crate::commands::Session;
use crate::commands::run::inputs::{Input, StoreValue};
use crate::commands::run::watch;
use crate::error::Error;
use crate::sanitize;
use crate::wire::{Begun, Run};

/// Start a run of a graph, at its newest revision
///
/// Inputs go to the graph's root node and override those of the template. A
/// value that is JSON is taken as JSON (3, true, [1,2], "text"), anything else
/// as a string, and @FILE stands for the text of a file.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run start greet --input name=Ada --watch
  exosphere run start words --input text=@book.txt --input parts=20
  exosphere run start crawl --store cursor=2026-01-01 --delay 15m
  exosphere run start bill --idempotency-key invoice-4711

With --watch it follows the run to its end, as `run watch` does, with the same
exit codes; with --json too, only the run as it ended is printed.")]
pub struct Start {
    /// The graph
    graph: Name,
    /// An input of the root node: JSON, else text; @FILE for a file's text
    #[arg(long = "input", value_name = "NAME=VALUE")]
    inputs: Vec<Input>,
    /// A first value in the run's store
    #[arg(long = "store", value_name = "KEY=VALUE")]
    store: Vec<StoreValue>,
    /// A word that makes the start safe to repeat: a second one with the same
    /// key gives the first one's run, or is refused if it asks for something else.
    /// Without one, the command makes one up and repeats itself for a while
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait so long before the first state, for example 90s, 15m, 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    delay: Option<u64>,
    /// Follow the run until it ends
    #[arg(long)]
    watch: bool,
}

/// The time for which a start is repeated while the host is unavailable or its answer
/// is lost.
const REPEAT_WITHIN: Duration = Duration::from_secs(15);

/// The backoff before the first repeat, and before each later one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(1));

/// Timeout for the answer to a small start, which a host gives within five seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// The size up to which a start is small, in bytes. A larger one waits for its turn at
/// the host.
const SMALL: usize = 128 * 1024;

impl Start {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let mut body = self.body()?;
        // Every start has an idempotency key, so that it can be repeated safely.
        let key = self.idempotency_key.clone().unwrap_or_else(own_key);
        body["idempotency_key"] = json!(key);
        let begun = begin(|| self.send(session, &body), &key)?;
        // If a try's answer was lost, the run that it started belongs to this command.
        let is_known = begun.is_first && self.idempotency_key.is_some();
        let is_known = is_known && begun.answer.read::<Begun>()?.started_before;
        if self.watch {
            if is_known {
                eprintln!("{STARTED_BEFORE}");
            }
            return watch::follow(session, started(&begun.answer)?);
        }
        session.output.answer(&begun.answer, |answer| show(answer, is_known))
    }

    fn send(&self, session: &Session, body: &Value) -> Result<Answer, Error> {
        let call = session.client.call(Method::POST, &["graphs", self.graph.as_str(), "runs"]);
        let text = serde_json::to_vec(body).map_err(|error| Error::Failed(error.to_string()))?;
        let is_small = text.len() <= SMALL;
        let call = call.json_text(text);
        if is_small { call.within(ANSWER_WITHIN).send() } else { call.send() }
    }

    fn body(&self) -> Result<Value, Error> {
        let mut inputs = Map::new();
        for input in &self.inputs {
            if inputs.insert(input.name.clone(), input.value()?).is_some() {
                return Err(Error::Usage(format!("--input {} is given twice", input.name)));
            }
        }
        let mut store = BTreeMap::new();
        for StoreValue { key, value } in &self.store {
            if store.insert(key, value).is_some() {
                return Err(Error::Usage(format!("--store {key} is given twice")));
            }
        }
        let mut body = json!({ "inputs": inputs, "store": store });
        if let Some(key) = &self.idempotency_key {
            body["idempotency_key"] = json!(key);
        }
        if let Some(delay) = self.delay {
            body["delay_ms"] = json!(delay);
        }
        Ok(body)
    }
}

/// Returns a unique idempotency key.
#[expect(clippy::disallowed_methods, reason = "the client has no injected clock")]
fn own_key() -> String {
    format!("cli-{}", Uuid::now_v7())
}

/// Parses a duration such as `90s` into milliseconds.
fn duration(text: &str) -> Result<u64, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = units.iter().find(|(unit, _)| *unit == &text[number.len()..]);
    let ms = unit.and_then(|(_, ms)| number.parse::<u64>().ok()?.checked_mul(*ms));
    ms.ok_or_else(|| "give a whole number and its unit: ms, s, m, h or d".to_owned())
}

/// Returns the id of the run in an answer. The id is parsed, because it becomes a part
/// of the next URL and a hostile host could redirect the client.
fn started(answer: &Answer) -> Result<RunId, Error> {
    let run: Run = answer.read()?;
    let id = run.run.parse().map_err(|_| Error::Internal("the new run has no valid id".into()))?;
    Ok(RunId(id))
}

const STARTED_BEFORE: &str =
    "started before: the run is the one that this idempotency key has begun";

fn show(answer: &Answer, is_known: bool) -> Result<String, Error> {
    let run = sanitize::line(&answer.read::<Run>()?.run);
    let known = if is_known { format!("\n{STARTED_BEFORE}") } else { String::new() };
    Ok(format!("{run}{known}\nfollow it with: exosphere run watch {run}"))
}

/// A start that the host has answered.
struct Sent {
    answer: Answer,
    /// Set if the first try was answered.
    is_first: bool,
}

/// Sends a start, and repeats it for a while with the same idempotency key if the host
/// is unavailable or its answer is lost.
fn begin(send: impl Fn() -> Result<Answer, Error>, key: &str) -> Result<Sent, Error> {
    let (begun, mut pause) = (Instant::now(), PAUSES.0);
    let mut is_first = true;
    loop {
        let error = match send() {
            Ok(answer) => return Ok(Sent { answer, is_first }),
            Err(error) => error,
        };
        let is_passing = match &error {
            Error::Unavailable { .. } | Error::Unanswered(_) => true,
            // A host that is restarting is tried again; a host that was never reached
            // is not.
            Error::Unreachable(_) => !is_first,
            _ => false,
        };
        if !is_passing {
            return Err(error);
        }
        if begun.elapsed() + pause >= REPEAT_WITHIN {
            eprintln!("to repeat this start safely, add: --idempotency-key {key}");
            return Err(error);
        }
        eprintln!(
            "{}\nrepeating it with the same idempotency key",
            sanitize::lines(&error.to_string())
        );
        is_first = false;
        thread::sleep(pause);
        pause = PAUSES.1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable() -> Error {
        Error::Unavailable { problem: Default::default(), json: String::new() }
    }

    #[test]
    fn a_refused_start_is_not_repeated() {
        let sent = std::cell::Cell::new(0);
        let send = |error: fn() -> Error| {
            sent.set(0);
            begin(
                || {
                    sent.set(sent.get() + 1);
                    Err(error())
                },
                "k",
            )
            .err()
            .unwrap()
            .exit_code()
        };
        assert_eq!((send(|| Error::Failed("no".into())), sent.get()), (1, 1));
        // The host was never reachable.
        assert_eq!((send(|| Error::Unreachable("no".into())), sent.get()), (3, 1));
    }

    #[test]
    fn an_unavailable_host_is_asked_again() {
        let sent = std::cell::Cell::new(0);
        let send = || {
            sent.set(sent.get() + 1);
            match sent.get() {
                1 => Err(unavailable()),
                2 => Err(Error::Unreachable("restarted".into())),
                _ => Err(Error::Failed("the end".into())),
            }
        };
        assert_eq!(begin(send, "k").err().unwrap().exit_code(), 1);
        assert_eq!(sent.get(), 3);
    }

    fn start(inputs: &[&str], store: &[&str]) -> Start {
        Start {
            graph: "g".parse().unwrap(),
            inputs: inputs.iter().map(|text| text.parse().unwrap()).collect(),
            store: store.iter().map(|text| text.parse().unwrap()).collect(),
            idempotency_key: None,
            delay: None,
            watch: false,
        }
    }

    #[test]
    fn the_body_holds_inputs_and_store() {
        let body = start(&["n=3", "who=Ada"], &["cursor=3"]).body().unwrap();
        assert_eq!(body, json!({ "inputs": { "n": 3, "who": "Ada" }, "store": { "cursor": "3" } }));
        assert_eq!(start(&[], &[]).body().unwrap(), json!({ "inputs": {}, "store": {} }));
        let later = Start { idempotency_key: Some("a".into()), delay: Some(5), ..start(&[], &[]) };
        let expected = json!({ "inputs": {}, "store": {}, "idempotency_key": "a", "delay_ms": 5 });
        assert_eq!(later.body().unwrap(), expected);
    }

    #[test]
    fn a_delay_has_a_unit() {
        assert_eq!(duration("250ms"), Ok(250));
        assert_eq!(duration("2h"), Ok(7_200_000));
        for wrong in ["", "5", "s", "-1s", "1.5s", "5 s", "5w", "99999999999999999999d", "ß"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_given_twice() {
        for twice in [start(&["n=3", "n=4"], &[]), start(&[], &["k=1", "k=1"])] {
            assert_eq!(twice.body().unwrap_err().exit_code(), 2);
        }
    }
}
