//! `exosphere run start`: starts a run of a graph.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use exosphere_api_types::{AnyJson, Label, RunStarted, StartRun};
use exosphere_domain::ids::{Name, RunId};
use exosphere_domain::label::BadLabel;
use exosphere_domain::outage_backoff::Backoff;
use reqwest::Method;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::again::follow_up;
use crate::client::Answer;
use crate::commands::Context;
use crate::commands::run::filter::label;
use crate::commands::run::inputs::{InputArgs, StoreValue};
use crate::commands::run::watch;
use crate::error::Error;
use crate::sanitize;
use crate::time::duration_ms;

/// Start a run of a graph at its current or a chosen revision
///
/// Inputs go to the graph's root node and override those of the template. A
/// value that is valid JSON is read as JSON (3, true, ["a"], "text"), any other
/// one as a string; @FILE stands for the text of a file, @- for standard input.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run start greet --input name=Ada --watch
  exosphere run start words --input text=@book.txt --input parts=20
  exosphere run start words --inputs inputs.json --input-json tags=@tags.json
  generate | exosphere run start words --inputs -
  exosphere run start crawl --store cursor=2026-01-01 --delay 15m
  exosphere run start bill --idempotency-key invoice-4711 --label customer=4711
  exosphere run start words --revision 3 --deadline 2h --start-by 5m

With --watch, the command follows the run to its end like `run watch`, with the
same exit codes, and prints its result. With --json and --watch, it prints the run once, after its end.")]
pub struct Start {
    /// The graph
    graph: Name,
    #[command(flatten)]
    inputs: InputArgs,
    /// An initial entry of the run's store
    #[arg(long = "store", value_name = "KEY=VALUE")]
    store: Vec<StoreValue>,
    /// A label of the run, by which `run list` finds it
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<Label>,
    /// An idempotency key, which makes the start safe to repeat: a second start with
    /// the same key returns the run of the first, and is refused if it differs
    /// [default: a random key, with which the command repeats a failed start for 15 s]
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// The delay before the first state is due, for example 90s, 15m, 2h
    #[arg(long, value_name = "TIME", value_parser = duration_ms)]
    delay: Option<u64>,
    /// The revision of the graph [default: the current one]
    #[arg(long, value_name = "NUMBER")]
    revision: Option<u64>,
    /// The time within which the run must end, for example 2h; else it fails, and its
    /// open states are cancelled
    #[arg(long, value_name = "TIME", value_parser = duration_ms)]
    deadline: Option<u64>,
    /// The time within which a state of the run must begin; else the run fails
    #[arg(long, value_name = "TIME", value_parser = duration_ms)]
    start_by: Option<u64>,
    /// Follow the run until it ends
    #[arg(long)]
    watch: bool,
}

/// The time for which a start is repeated while the host is unavailable or its answer
/// is lost.
const REPEAT_TIMEOUT: Duration = Duration::from_secs(15);

/// The backoff between repeats: the first pause and the longest.
const REPEAT_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(1));

/// Timeout for the answer to a small start, which a host gives within five seconds.
const SMALL_START_TIMEOUT: Duration = Duration::from_secs(8);

/// The size up to which a start is small, in bytes. A larger one waits for its turn at
/// the host.
const SMALL_START_BYTES: usize = 128 * 1024;

impl Start {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        // Every start has an idempotency key, so that it can be repeated safely.
        let key = self.idempotency_key.clone().unwrap_or_else(generate_key);
        let body = StartRun { idempotency_key: Some(key.clone()), ..self.body()? };
        let sent = send_repeatedly(|| self.send(context, &body), &key);
        let sent = sent.map_err(|error| self.explained(error))?;
        // If a try's answer was lost, the run that it started belongs to this command.
        let is_known = sent.is_first && self.idempotency_key.is_some();
        let is_known = is_known && sent.answer.read::<RunStarted>()?.started_before;
        if self.watch {
            if is_known {
                eprintln!("{STARTED_BEFORE}");
            }
            return watch::follow(context, run_id(&sent.answer)?);
        }
        context.output.answer(&sent.answer, |answer| show(answer, is_known))
    }

    fn send(&self, context: &Context, body: &StartRun) -> Result<Answer, Error> {
        let call = context.client.call(Method::POST, &["graphs", self.graph.as_str(), "runs"]);
        let text = serde_json::to_vec(body).map_err(|error| Error::Failed(error.to_string()))?;
        let is_small = text.len() <= SMALL_START_BYTES;
        let call = call.json_text(text);
        if is_small { call.within(SMALL_START_TIMEOUT).send() } else { call.send() }
    }

    /// Adds what this command line tells to a refusal of its inputs.
    fn explained(&self, error: Error) -> Error {
        match error {
            Error::Refused { mut problem, json } => {
                problem.errors.iter_mut().for_each(|item| self.inputs.explain(item));
                Error::Refused { problem, json }
            }
            error => error,
        }
    }

    fn body(&self) -> Result<StartRun, Error> {
        let inputs = self.inputs.read()?;
        let mut store = Map::new();
        for StoreValue { key, value } in &self.store {
            if store.insert(key.clone(), value.as_str().into()).is_some() {
                return Err(Error::Usage(format!("--store {key} is given twice")));
            }
        }
        let mut labels = BTreeMap::new();
        for label in &self.labels {
            if labels.insert(label.key().to_owned(), label.value().to_owned()).is_some() {
                return Err(Error::Usage(format!("--label {} is given twice", label.key())));
            }
        }
        let labels = labels.try_into();
        let labels = labels.map_err(|error: BadLabel| Error::Usage(error.to_string()))?;
        Ok(StartRun {
            labels,
            idempotency_key: self.idempotency_key.clone(),
            inputs: Some(AnyJson(Value::Object(inputs))),
            store: Some(AnyJson(Value::Object(store))),
            delay_ms: self.delay,
            revision: self.revision,
            deadline_ms: self.deadline,
            start_by_ms: self.start_by,
        })
    }
}

/// Generates a unique idempotency key.
#[expect(clippy::disallowed_methods, reason = "the client has no injected clock")]
fn generate_key() -> String {
    format!("cli-{}", Uuid::now_v7())
}

/// Returns the id of the run in an answer. The id is parsed, because it becomes a part
/// of the next URL and a hostile host could redirect the client.
fn run_id(answer: &Answer) -> Result<RunId, Error> {
    let started: RunStarted = answer.read()?;
    let id = started.details.summary.run.parse();
    let id = id.map_err(|_| Error::Internal("the id of the new run is not valid".into()))?;
    Ok(RunId(id))
}

const STARTED_BEFORE: &str =
    "started before: an earlier start with this idempotency key created the run";

fn show(answer: &Answer, is_known: bool) -> Result<String, Error> {
    let run = sanitize::line(&answer.read::<RunStarted>()?.details.summary.run);
    let known = if is_known { format!("\n{STARTED_BEFORE}") } else { String::new() };
    Ok(format!("{run}{known}\nfollow it with: {}", follow_up(&["run", "watch", &run])))
}

/// A start that the host has answered.
struct Sent {
    answer: Answer,
    /// Set if the first try was answered.
    is_first: bool,
}

/// Sends a start, and repeats it for a while with the same idempotency key if the host
/// is unavailable or its answer is lost.
fn send_repeatedly(send: impl Fn() -> Result<Answer, Error>, key: &str) -> Result<Sent, Error> {
    let mut backoff = Backoff::new(REPEAT_BACKOFF.0, REPEAT_BACKOFF.1);
    let started = Instant::now();
    let mut is_first = true;
    loop {
        let error = match send() {
            Ok(answer) => return Ok(Sent { answer, is_first }),
            Err(error) => error,
        };
        let is_transient = match &error {
            Error::Unavailable { .. } | Error::Unanswered(_) => true,
            // A host that is restarting is tried again; a host that was never reached
            // is not.
            Error::Unreachable(_) => !is_first,
            _ => false,
        };
        if !is_transient {
            return Err(error);
        }
        if started.elapsed() + backoff.peek() >= REPEAT_TIMEOUT {
            eprintln!("to repeat this start safely, add --idempotency-key {key}");
            return Err(error);
        }
        eprintln!(
            "{}\nrepeating the start with the same idempotency key",
            sanitize::lines(&error.to_string())
        );
        is_first = false;
        thread::sleep(backoff.advance());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn unavailable() -> Error {
        Error::Unavailable { problem: Default::default(), json: String::new() }
    }

    #[test]
    fn refused_starts_are_not_repeated() {
        let sent = std::cell::Cell::new(0);
        let send = |error: fn() -> Error| {
            sent.set(0);
            send_repeatedly(
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
    fn unavailable_hosts_are_asked_again() {
        let sent = std::cell::Cell::new(0);
        let send = || {
            sent.set(sent.get() + 1);
            match sent.get() {
                1 => Err(unavailable()),
                2 => Err(Error::Unreachable("restarted".into())),
                _ => Err(Error::Failed("the end".into())),
            }
        };
        assert_eq!(send_repeatedly(send, "k").err().unwrap().exit_code(), 1);
        assert_eq!(sent.get(), 3);
    }

    fn start(inputs: &[&str], store: &[&str]) -> Start {
        Start {
            graph: "g".parse().unwrap(),
            inputs: InputArgs {
                inputs: inputs.iter().map(|text| text.parse().unwrap()).collect(),
                ..InputArgs::default()
            },
            store: store.iter().map(|text| text.parse().unwrap()).collect(),
            labels: Vec::new(),
            idempotency_key: None,
            delay: None,
            revision: None,
            deadline: None,
            start_by: None,
            watch: false,
        }
    }

    #[test]
    fn the_body_holds_inputs_and_store() {
        let body_json = |start: Start| serde_json::to_value(start.body().unwrap()).unwrap();
        let body = body_json(start(&["n=3", "who=Ada"], &["cursor=3"]));
        assert_eq!(body, json!({ "inputs": { "n": 3, "who": "Ada" }, "store": { "cursor": "3" } }));
        assert_eq!(body_json(start(&[], &[])), json!({ "inputs": {}, "store": {} }));
        let delayed =
            Start { idempotency_key: Some("a".into()), delay: Some(5), ..start(&[], &[]) };
        let expected = json!({ "inputs": {}, "store": {}, "idempotency_key": "a", "delay_ms": 5 });
        assert_eq!(body_json(delayed), expected);
        let labels = ["team=a", "url=http://x:1"].map(|text| label(text).unwrap()).to_vec();
        let labelled = body_json(Start { labels, ..start(&[], &[]) });
        assert_eq!(labelled["labels"], json!({ "team": "a", "url": "http://x:1" }));
    }

    #[test]
    fn repeated_inputs_are_refused() {
        let labels = ["team=a", "team=b"].map(|text| label(text).unwrap()).to_vec();
        for duplicate in [
            start(&["n=3", "n=4"], &[]),
            start(&[], &["k=1", "k=1"]),
            Start { labels, ..start(&[], &[]) },
        ] {
            assert_eq!(duplicate.body().unwrap_err().exit_code(), 2);
        }
    }
}
