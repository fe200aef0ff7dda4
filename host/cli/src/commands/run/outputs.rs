//! `exosphere run outputs`: the outputs of one state, in pages.

use std::fmt::Write as _;

use exosphere_api_types::StateOutputs;

use crate::commands::Context;
use crate::commands::run::result::{Continuations, Page};
use crate::commands::run::state_ref::{StatePath, StateRef};
use crate::error::Error;
use crate::sanitize;

/// The words for a state without outputs.
const NOTHING: &str = "the state has no outputs";

/// Print the outputs of a state
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run outputs latest split
  exosphere run outputs latest split --after 1000 --limit 50
  exosphere run outputs latest split --all --raw > outputs.jsonl")]
pub struct Outputs {
    /// The run, or the state as RUN/STATE
    run: StateRef,
    /// The path of the state, as `run states` prints it
    state: Option<StatePath>,
    /// Print each output as JSON on a line of its own, and nothing else
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    page: Page,
}

impl Outputs {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let Some(state) = self.run.state(&self.state)? else {
            return Err(Error::Usage(
                "no state is given; list them with `exosphere run states RUN`".to_owned(),
            ));
        };
        let run = self.run.run(context)?.to_string();
        let answer = self.page.read(context, &["runs", &run, "states", state, "outputs"])?;
        let first = self.page.after.as_ref().and_then(|after| after.parse().ok()).unwrap_or(0);
        context.output.answer(&answer, |answer| {
            answer.require("outputs")?;
            let page: StateOutputs = answer.read()?;
            let mut text = String::new();
            for (index, output) in (first..).zip(&page.outputs) {
                if self.raw {
                    let _ = writeln!(text, "{}", sanitize::json(&output.to_string()));
                    continue;
                }
                let gap = if text.is_empty() { "" } else { "\n" };
                let body = sanitize::lines(&format!("{output:#}")).replace('\n', "\n  ");
                let _ = write!(text, "{gap}output {index}\n  {body}");
            }
            let continuations = page.next.as_ref().map(|next| {
                self.page.continuations(&["run", "outputs", &page.state], next, self.raw)
            });
            match continuations {
                Some(Continuations { more, .. }) if self.raw => eprintln!("more: {more}"),
                Some(Continuations { more, all }) => {
                    let _ = write!(text, "\n\nmore: {more}\nall:  {all}");
                }
                None if text.is_empty() && self.raw => eprintln!("{NOTHING}"),
                None if text.is_empty() => text.push_str(NOTHING),
                None => {}
            }
            Ok(text)
        })
    }
}
