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
  exosphere run start crawl --store cursor=2026-01-01

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
        Ok(json!({ "inputs": inputs, "store": store }))
    }
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
            watch: false,
        }
    }

    #[test]
    fn the_body_holds_inputs_and_store() {
        let body = start(&["n=3", "who=Ada"], &["cursor=3"]).body().unwrap();
        assert_eq!(body, json!({ "inputs": { "n": 3, "who": "Ada" }, "store": { "cursor": "3" } }));
        assert_eq!(start(&[], &[]).body().unwrap(), json!({ "inputs": {}, "store": {} }));
    }

    #[test]
    fn nothing_is_given_twice() {
        for twice in [start(&["n=3", "n=4"], &[]), start(&[], &["k=1", "k=1"])] {
            assert_eq!(twice.body().unwrap_err().exit_code(), 2);
        }
    }
}
