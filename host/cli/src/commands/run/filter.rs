//! The filter of runs on the command line, of lists and of bulk operations.

use exosphere_api_types::{Label, RunFilter, RunStatus};
use exosphere_domain::ids::Name;

use crate::commands::run::uppercase_word;
use crate::time::past;

/// The conditions on runs.
#[derive(Debug, clap::Args)]
pub struct FilterArgs {
    /// Only runs of this graph
    #[arg(long)]
    graph: Option<Name>,
    /// Only runs with this status
    #[arg(long, ignore_case = true, value_parser = uppercase_word(&["RUNNING", "SUCCESS", "FAILED", "CANCELLED"]))]
    status: Vec<String>,
    /// Only runs with this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<Label>,
    /// Only runs started at this time or later: a time ago, for example 15m, 2h, 7d, or a date
    /// (UTC)
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<i64>,
    /// Only runs started before this time
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<i64>,
}

impl FilterArgs {
    /// Returns the filter.
    pub fn filter(&self) -> RunFilter {
        RunFilter {
            statuses: self.status.iter().filter_map(|status| RunStatus::parse(status)).collect(),
            graph: self.graph.clone(),
            labels: self.label.clone(),
            created_after: self.since,
            created_before: self.until,
        }
    }

    /// Returns the filter as query parameters.
    pub fn query(&self) -> Vec<(&'static str, Option<String>)> {
        let mut query = vec![
            ("graph", self.graph.as_ref().map(Name::to_string)),
            ("created_after", self.since.map(|time| time.to_string())),
            ("created_before", self.until.map(|time| time.to_string())),
        ];
        query.extend(self.status.iter().map(|status| ("status", Some(status.clone()))));
        query.extend(self.label.iter().map(|label| ("label", Some(label.to_string()))));
        query
    }
}

/// Parses a label, `KEY=VALUE`.
pub fn label(text: &str) -> Result<Label, String> {
    let (key, value) = text.split_once('=').ok_or("not a valid label: give KEY=VALUE")?;
    Label::new(key, value).map_err(|error| error.to_string())
}
