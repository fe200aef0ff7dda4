//! `exosphere run start`: starts a run of a graph.

use std::collections::BTreeMap;

use exosphere_domain::ids::{Name, RunId};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::clean;
use crate::client::Answer;
use crate::commands::Session;
use crate::commands::run::given::{Input, StoreValue};
use crate::commands::run::watch;
use crate::error::Error;
use crate::wire::Run;

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
    /// key gives the first one's run
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait so long before the first state, for example 90s, 15m, 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    delay: Option<u64>,
    /// Follow the run until it ends
    #[arg(long)]
    watch: bool,
}

impl Start {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let body = self.body()?;
        let call = session.client.call(Method::POST, &["graphs", self.graph.as_str(), "runs"]);
        let answer = call.json(&body).send()?;
        match self.watch {
            true => watch::follow(session, started(&answer)?),
            false => session.output.answer(&answer, show),
        }
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

/// A stretch of time as people type it, in milliseconds.
fn duration(text: &str) -> Result<u64, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = units.iter().find(|(unit, _)| *unit == &text[number.len()..]);
    let ms = unit.and_then(|(_, ms)| number.parse::<u64>().ok()?.checked_mul(*ms));
    ms.ok_or_else(|| "give a whole number and its unit: ms, s, m, h or d".to_owned())
}

/// The id of the run that an answer is about. It goes into the next address,
/// so that a host which makes one up does not lead us elsewhere.
fn started(answer: &Answer) -> Result<RunId, Error> {
    let run: Run = answer.read()?;
    let id = run.run.parse().map_err(|_| Error::Internal("the new run has no valid id".into()))?;
    Ok(RunId(id))
}

fn show(answer: &Answer) -> Result<String, Error> {
    let run = clean::line(&answer.read::<Run>()?.run);
    Ok(format!("{run}\nfollow it with: exosphere run watch {run}"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
