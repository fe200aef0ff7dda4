//! `exosphere run result`: the outputs of a run's last states.

use std::fmt::Write as _;

use exosphere_api_types::{ResultOutput, RunResult, RunStatus};
use exosphere_domain::ids::RunId;
use reqwest::Method;

use crate::again::follow_up;
use crate::client::Answer;
use crate::commands::run::state_ref::StateRef;
use crate::commands::{Context, pages};
use crate::error::Error;
use crate::sanitize;

/// The number of outputs that are shown unless the command line says otherwise.
pub const SHOWN_OUTPUTS: u32 = 20;

/// Print the result of a run: the outputs of its last states
///
/// The last states are those at nodes that no other node follows, in the order of
/// their paths. While the run is running, these are the results so far.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run result latest
  exosphere run result latest --raw --all > result.jsonl
  exosphere run result 0195b7f0 --json

With --raw, each output is printed as the node returned it, one per line, and
nothing else.")]
pub struct Show {
    /// The run
    run: StateRef,
    /// Print each output as JSON on a line of its own, and nothing else
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    page: Page,
}

/// The part of a list of outputs that is printed.
#[derive(Debug, clap::Args)]
pub struct Page {
    /// Print every output
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    pub all: bool,
    /// The maximum number of items, at most 1000 [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: Option<u32>,
    /// Continue after an earlier page
    #[arg(long, value_name = "TOKEN")]
    pub after: Option<String>,
}

impl Page {
    /// Reads the part of a list whose items are in the member `outputs`.
    pub fn read(&self, context: &Context, path: &[&str]) -> Result<Answer, Error> {
        let call = || context.client.call(Method::GET, path);
        if self.all {
            return pages::read_all(call, "outputs");
        }
        let limit = self.limit.unwrap_or(SHOWN_OUTPUTS);
        pages::read_up_to(call, "outputs", limit, self.after.as_deref())
    }
}

/// The commands after a page.
pub struct Continuations {
    /// Prints the next page.
    pub more: String,
    /// Prints every output.
    pub all: String,
}

impl Page {
    /// Returns the commands that continue after this page. They name the object by its id: another
    /// run may be the latest one by then.
    pub fn continuations(&self, object: &[&str], next: &str, raw: bool) -> Continuations {
        let mut words = object.to_vec();
        if raw {
            words.push("--raw");
        }
        let all = follow_up(&[&words[..], &["--all"]].concat());
        let limit = self.limit.map(|limit| limit.to_string());
        words.extend(limit.iter().flat_map(|limit| ["--limit", limit.as_str()]));
        Continuations { more: follow_up(&[&words[..], &["--after", next]].concat()), all }
    }
}

impl Show {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let run = self.run.run(context)?.to_string();
        let answer = self.page.read(context, &["runs", &run, "result"])?;
        context.output.answer(&answer, |answer| {
            answer.require("outputs")?;
            let result: RunResult = answer.read()?;
            let mut text = if self.raw { raw(&result.outputs) } else { outputs(&result.outputs) };
            let continuations = result.next.as_ref().map(|next| {
                self.page.continuations(&["run", "result", &result.run], next, self.raw)
            });
            if self.raw {
                match continuations {
                    Some(Continuations { more, .. }) => eprintln!("more: {more}"),
                    None if text.is_empty() => eprintln!("{}", nothing(result.status.known())),
                    None => {}
                }
                return Ok(text);
            }
            if text.is_empty() {
                text.push_str(nothing(result.status.known()));
            }
            if let Some(Continuations { more, all }) = continuations {
                let _ = write!(text, "\n\nmore: {more}\nall:  {all}");
            }
            Ok(text)
        })
    }
}

/// Returns the words for a run without results.
fn nothing(status: Option<RunStatus>) -> &'static str {
    match status {
        Some(RunStatus::Running) => "no results yet",
        _ => "the run has no results: no state at the end of its graph has outputs",
    }
}

/// Formats outputs one per line, as JSON.
fn raw(outputs: &[ResultOutput]) -> String {
    outputs.iter().map(|output| sanitize::json(&output.output.to_string())).fold(
        String::new(),
        |mut text, line| {
            text.push_str(&line);
            text.push('\n');
            text
        },
    )
}

/// Formats outputs with the paths of their states.
fn outputs(outputs: &[ResultOutput]) -> String {
    let mut text = String::new();
    for ResultOutput { path, index, output } in outputs {
        if !text.is_empty() {
            text.push('\n');
        }
        let body = sanitize::lines(&format!("{output:#}")).replace('\n', "\n  ");
        let _ = write!(text, "{}, output {index}\n  {body}", sanitize::line(path));
    }
    text
}

/// Returns the result of a run that was watched, as a paragraph to be appended; empty if it has
/// none.
pub fn of_watched(context: &Context, run: RunId) -> Result<String, Error> {
    let id = run.to_string();
    let call = || context.client.call(Method::GET, &["runs", &id, "result"]);
    let result: RunResult = pages::read_up_to(call, "outputs", SHOWN_OUTPUTS, None)?.read()?;
    let shown = outputs(&result.outputs);
    if shown.is_empty() {
        return Ok(String::new());
    }
    let more = match result.next {
        Some(_) => format!("\n\nmore: {}", follow_up(&["run", "result", &id, "--all"])),
        None => String::new(),
    };
    Ok(format!("\n\nresult\n{shown}{more}"))
}
