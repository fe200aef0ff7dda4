//! `exosphere graph diff`: the differences between two revisions of a graph.

use exosphere_api_types::{AnyJson, FieldDiff, GraphDetails, GraphDiff};
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::error::Error;
use crate::sanitize;

/// The longest value that is shown, in characters.
const MAX_VALUE_CHARS: usize = 200;

/// Show the differences between two revisions of a graph
///
/// Nodes, edges and settings are compared, not texts. Lines begin with - for
/// what only the first revision has, + for what only the second one has, and ~
/// for what differs.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere graph diff words          the last revision and the one before
  exosphere graph diff words 3        revision 3 and the current one
  exosphere graph diff words 3 5")]
pub struct Diff {
    /// The graph
    graph: Name,
    /// The first revision [default: the one before the current]
    from: Option<u32>,
    /// The second revision [default: the current one]
    to: Option<u32>,
}

impl Diff {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let graph = self.graph.as_str();
        let to = match self.to {
            Some(to) => u64::from(to),
            None => {
                let current = context.client.call(Method::GET, &["graphs", graph]).send()?;
                current.read::<GraphDetails>()?.revision
            }
        };
        let from = match self.from {
            Some(from) => u64::from(from),
            None if to > 1 => to - 1,
            None => {
                let message = "the graph has one revision; there is nothing to compare it with";
                return Err(Error::Failed(message.to_owned()));
            }
        };
        let query = [("from", Some(from.to_string())), ("to", Some(to.to_string()))];
        let call = context.client.call(Method::GET, &["graphs", graph, "diff"]).query(&query);
        context.output.answer(&call.send()?, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let diff: GraphDiff = answer.read()?;
    let mut lines = Vec::new();
    let mut line =
        |sign: char, text: String| lines.push(format!("{sign} {}", sanitize::line(&text)));
    diff.removed.iter().for_each(|node| line('-', format!("node {node}")));
    diff.added.iter().for_each(|node| line('+', format!("node {node}")));
    for node in &diff.changed {
        let of_node = |field: &FieldDiff| format!("node {} {}", node.identifier, change(field));
        node.fields.iter().for_each(|field| line('~', of_node(field)));
    }
    diff.edges_removed
        .iter()
        .for_each(|edge| line('-', format!("edge {} > {}", edge.from, edge.to)));
    diff.edges_added.iter().for_each(|edge| line('+', format!("edge {} > {}", edge.from, edge.to)));
    diff.settings.iter().for_each(|field| line('~', change(field)));
    let heading = format!("{}, revision {} to {}", sanitize::line(&diff.name), diff.from, diff.to);
    if lines.is_empty() {
        return Ok(format!("{heading}: no differences"));
    }
    Ok(format!("{heading}\n\n{}", lines.join("\n")))
}

/// Returns a changed field with both values: `inputs.text: 1 -> 2`.
fn change(field: &FieldDiff) -> String {
    format!("{}: {} -> {}", field.field, value(&field.from), value(&field.to))
}

fn value(value: &Option<AnyJson>) -> String {
    let Some(value) = value else { return "nothing".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(MAX_VALUE_CHARS) {
        Some((cut, _)) => format!("{}.. ({} bytes; --json shows all)", &text[..cut], text.len()),
        None => text,
    }
}
