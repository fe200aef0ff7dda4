//! `exosphere run failures`: the failures of a run, grouped.

use exosphere_api_types::{FailureFilter, FailureGroups};
use reqwest::Method;

use crate::again::follow_up;
use crate::client::Answer;
use crate::commands::Context;
use crate::commands::run::state_ref::StateRef;
use crate::error::Error;
use crate::format::{cell, optional_cell, table, utc};

/// Show the failures of a run, grouped by kind and message
///
/// Messages that differ only in numbers, ids and quoted values are in one group.
#[derive(Debug, clap::Args)]
pub struct Failures {
    /// The run
    run: StateRef,
}

impl Failures {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let run = self.run.run(context)?.to_string();
        let answer = context.client.call(Method::GET, &["runs", &run, "failures"]).send()?;
        context.output.answer(&answer, |answer: &Answer| Ok(show(&answer.read()?)))
    }
}

fn show(failures: &FailureGroups) -> String {
    if failures.groups.is_empty() {
        return "no state of the run has failed".to_owned();
    }
    let rows = failures.groups.iter().map(|group| {
        [
            cell(group.count),
            cell(&group.kind),
            optional_cell(group.message.as_ref()),
            cell(&group.example),
            cell(utc(group.first_at)),
            cell(utc(group.last_at)),
        ]
    });
    let mut text = table(["STATES", "KIND", "MESSAGE", "STATE", "FIRST", "LAST"], rows);
    if failures.others > 0 {
        text.push_str(&format!("\n\n{} states in further groups", failures.others));
    }
    if failures.sample.is_partial() {
        let (examined, of) = (failures.sample.examined, failures.sample.of);
        text.push_str(&format!("\n\nestimated from {examined} of {of} failed states"));
    }
    if let Some(filter) = failures.groups.iter().find_map(|group| group.filter.as_ref()) {
        text.push_str(&format!("\n\nlist a group: {}", states_command(&failures.run, filter)));
    }
    text
}

/// Returns the command that lists the states of a group.
fn states_command(run: &str, filter: &FailureFilter) -> String {
    let mut words = vec!["run", "states", run, "--kind", &filter.kind];
    if let Some(message) = &filter.message {
        words.extend(["--message", message]);
    }
    follow_up(&words)
}

#[cfg(test)]
mod tests {
    use exosphere_api_types::{FailureGroup, Sample};

    use super::*;

    #[test]
    fn groups_are_listed_with_a_command() {
        let group = FailureGroup {
            kind: "permanent".to_owned(),
            message: Some("row <n> is bad".to_owned()),
            count: 37,
            example: "split.count[3]".to_owned(),
            first_at: 0,
            last_at: 1_000,
            filter: Some(FailureFilter {
                kind: "permanent".to_owned(),
                message: Some("row 3".to_owned()),
            }),
        };
        let failures = FailureGroups {
            run: "r".to_owned(),
            groups: vec![group],
            others: 2,
            sample: Sample { examined: 10, of: 20 },
        };
        let text = show(&failures);
        for part in [
            "37      permanent  row <n> is bad  split.count[3]",
            "2 states in further groups",
            "from 10 of 20 failed states",
            "exosphere run states r --kind permanent --message 'row 3'",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
