//! `exosphere bulk cancel`, `redrive` and `delete`: begin a bulk operation, after the number of its
//! runs has been shown.

use std::io::{self, BufRead, IsTerminal, Write};

use exosphere_api_types::{BulkAction, BulkDetails, BulkPreview, ExpectedRuns, StartBulk};
use exosphere_domain::plural::counted;
use reqwest::Method;

use crate::again::follow_up;
use crate::client::Answer;
use crate::commands::Context;
use crate::commands::bulk::show::{filter_text, summary};
use crate::commands::bulk::{id_of, watch};
use crate::commands::run::filter::FilterArgs;
use crate::error::Error;

/// The longest answer to a question that is read, in bytes.
const MAX_REPLY_BYTES: u64 = 1024;

/// The conditions on the runs, and the manner of the command.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere bulk redrive --graph words --since 24h --dry-run
  exosphere bulk redrive --graph words --since 24h --reason \"the index is back\" --watch
  exosphere bulk delete --status success --until 30d --yes")]
pub struct Start {
    #[command(flatten)]
    filter: FilterArgs,
    /// Why, for others to read
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Count the runs, and change none
    #[arg(long, conflicts_with_all = ["yes", "watch"])]
    dry_run: bool,
    /// Do not ask before runs are changed
    #[arg(long)]
    yes: bool,
    /// Follow the operation until it ends
    #[arg(long)]
    watch: bool,
}

impl Start {
    pub fn run(&self, context: &Context, action: BulkAction) -> Result<(), Error> {
        let filter = self.filter.filter();
        if filter.is_empty() {
            let message = "no condition is given, and every run of the namespace would be \
                           selected; give --graph, --status, --label, --since or --until";
            return Err(Error::Usage(message.to_owned()));
        }
        let request = StartBulk { action, filter, reason: self.reason.clone(), dry_run: false };
        if self.dry_run {
            return context.output.answer(&count(context, &request)?, preview);
        }
        if !self.yes && !confirm(context, &request)? {
            eprintln!("nothing was changed");
            return Ok(());
        }
        let answer = context.client.call(Method::POST, &["bulk"]).json(&request).send()?;
        let begun: BulkDetails = answer.read()?;
        let id = id_of(&begun)?;
        if self.watch {
            return watch::follow(context, &id);
        }
        context.output.answer(&answer, |_| {
            Ok(format!(
                "{}\n\nfollow it with: {}\nstop it with: {}",
                summary(&begun),
                follow_up(&["bulk", "watch", &id]),
                follow_up(&["bulk", "stop", &id])
            ))
        })
    }
}

/// Counts the runs of an operation.
fn count(context: &Context, request: &StartBulk) -> Result<Answer, Error> {
    let request = StartBulk { dry_run: true, ..request.clone() };
    context.client.call(Method::POST, &["bulk"]).json(&request).send()
}

/// Shows the number of runs, and asks whether to change them. Without a terminal, the command needs
/// `--yes`.
fn confirm(context: &Context, request: &StartBulk) -> Result<bool, Error> {
    let preview: BulkPreview = count(context, request)?.read()?;
    let sentence = sentence(&preview);
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let message =
            format!("{sentence}; --yes does it without a question, --dry-run only counts");
        return Err(Error::Usage(message));
    }
    if preview.expected == (ExpectedRuns { runs: 0, exact: true }) {
        eprintln!("{sentence}");
        return Ok(false);
    }
    eprint!("{sentence}. Go on? [y/N] ");
    io::stderr().flush()?;
    let mut reply = String::new();
    io::Read::take(io::stdin().lock(), MAX_REPLY_BYTES).read_line(&mut reply)?;
    Ok(matches!(reply.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn preview(answer: &Answer) -> Result<String, Error> {
    let preview: BulkPreview = answer.read()?;
    Ok(format!("{}; nothing was changed", sentence(&preview)))
}

/// Says what an operation would do: `redrive 344 runs with status=FAILED graph=words`.
fn sentence(preview: &BulkPreview) -> String {
    let ExpectedRuns { runs, exact } = preview.expected;
    let at_least = if exact { "" } else { "at least " };
    let runs = counted(runs, "run", "runs");
    format!("{} {at_least}{runs} with {}", preview.action, filter_text(&preview.filter))
}

#[cfg(test)]
mod tests {
    use exosphere_api_types::AnyJson;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sentence_has_count_and_filter() {
        let of = |runs, exact| BulkPreview {
            action: BulkAction::Redrive.into(),
            filter: AnyJson(json!({"status": ["FAILED"], "label": ["a:b"], "created_after": 0})),
            expected: ExpectedRuns { runs, exact },
        };
        let filter = "created_after=1970-01-01 00:00:00Z label=a:b status=FAILED";
        assert_eq!(sentence(&of(344, true)), format!("redrive 344 runs with {filter}"));
        assert_eq!(sentence(&of(1, true)), format!("redrive 1 run with {filter}"));
        let many = format!("redrive at least 10000 runs with {filter}");
        assert_eq!(sentence(&of(10_000, false)), many);
    }
}
