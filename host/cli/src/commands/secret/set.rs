//! `exosphere secret set`: sets a secret of a graph.

use std::path::PathBuf;

use exosphere_api_types::SecretValue;
use exosphere_domain::ids::Name;
use reqwest::Method;
use zeroize::Zeroizing;

use crate::commands::{Context, of_file, read_text};
use crate::error::Error;

/// Set a secret of a graph, whose value comes from a file or a pipe
///
/// The graph need not be applied yet: its template then needs no `secrets`.
/// Executions that begin later get the new value, also those of running runs.
/// A node reads a secret only if it declares it and an operator has granted it to
/// its plugin (`exosphere grant add PLUGIN --secret NAME`).
///
/// One line end at the end of the value is left out, as editors and `echo` add it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  pass show api | exosphere secret set api_key --graph bill --from-file -
  exosphere secret set api_key --graph bill --from-file /run/secrets/api_key")]
pub struct Set {
    /// The name of the secret
    name: Name,
    /// The graph that the secret belongs to
    #[arg(long)]
    graph: Name,
    /// The file with the value, - for standard input
    #[arg(long, value_name = "FILE")]
    from_file: PathBuf,
}

impl Set {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let text = Zeroizing::new(read_text(&self.from_file)?);
        let value = SecretValue { value: without_line_end(&text).to_owned() };
        let path = ["graphs", self.graph.as_str(), "secrets", self.name.as_str()];
        let answer = context.client.call(Method::PUT, &path).json(&value).send();
        let answer = answer.map_err(|error| of_file(&self.from_file, error))?;
        context.output.answer(&answer, |_| Ok(format!("{} of {} is set", self.name, self.graph)))
    }
}

/// Leaves out one line end at the end of a text.
fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_left_out() {
        for (text, value) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a b", "a b")] {
            assert_eq!(without_line_end(text), value);
        }
    }
}
