//! `exosphere run distribution`: how long the states of a node took and waited.

use exosphere_api_types::{NodeDistribution, TimeDistribution};
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::chart;
use crate::client::Answer;
use crate::commands::Context;
use crate::commands::run::state_ref::StateRef;
use crate::error::Error;
use crate::format::{cell, duration, optional_cell, record, table};

/// The columns beside a bar of a histogram.
const BAR_MARGIN: usize = 40;

/// Show how long the states of a node took and waited
///
/// Run times are those of last attempts; waiting times go from the time at which an attempt was due
/// to its begin.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run distribution latest count
  exosphere run distribution RUN count --json")]
pub struct Distribution {
    /// The run
    run: StateRef,
    /// The node, by its identifier in the graph
    node: Name,
}

impl Distribution {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let run = self.run.run(context)?.to_string();
        let path = ["runs", &run, "nodes", self.node.as_str(), "distribution"];
        let answer = context.client.call(Method::GET, &path).send()?;
        context.output.answer(&answer, |answer: &Answer| Ok(show(&answer.read()?)))
    }
}

fn show(of: &NodeDistribution) -> String {
    let mut text = format!("run times\n\n{}", times(&of.run_times));
    text.push_str(&format!("\n\nwaiting times\n\n{}", times(&of.waiting_times)));
    if !of.slowest.is_empty() {
        let rows = of.slowest.iter().map(|state| [cell(&state.path), cell(ms(state.run_ms))]);
        text.push_str(&format!("\n\nslowest\n\n{}", table(["STATE", "TOOK"], rows)));
    }
    if of.retried > 0 {
        let states = if of.retried == 1 { "state was" } else { "states were" };
        text.push_str(&format!("\n\n{} {states} retried, {} times", of.retried, of.retries));
    }
    if of.sample.is_partial() {
        let (examined, all) = (of.sample.examined, of.sample.of);
        text.push_str(&format!("\n\nestimated from {examined} of {all} states of the run"));
    }
    text
}

/// Formats a distribution: its percentiles, and a bar for each bucket.
fn times(times: &TimeDistribution) -> String {
    let mut text = record([
        ("STATES", cell(times.count)),
        ("P50", optional_cell(times.p50_ms.map(ms))),
        ("P90", optional_cell(times.p90_ms.map(ms))),
        ("P99", optional_cell(times.p99_ms.map(ms))),
        ("MAX", optional_cell(times.max_ms.map(ms))),
    ]);
    let max = times.buckets.iter().map(|bucket| bucket.count).max().unwrap_or_default();
    let width = chart::width().saturating_sub(BAR_MARGIN);
    for (at, bucket) in times.buckets.iter().enumerate() {
        let (from, to) = (ms(bucket.from_ms), ms(bucket.to_ms));
        let bar = chart::bar(bucket.count, max, width);
        let gap = if at == 0 { "\n\n" } else { "\n" };
        let line = format!("{from:>12} to {to:>12} {:>8} {bar}", bucket.count);
        text.push_str(&format!("{gap}{}", line.trim_end()));
    }
    text
}

fn ms(ms: u64) -> String {
    duration(i64::try_from(ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use exosphere_api_types::{Sample, SlowState, TimeBucket};

    use super::*;

    #[test]
    fn a_distribution_has_a_bar_for_each_bucket() {
        let run_times = TimeDistribution {
            count: 4,
            p50_ms: Some(3),
            p90_ms: Some(7),
            p99_ms: Some(7),
            max_ms: Some(1_500),
            buckets: vec![
                TimeBucket { from_ms: 2, to_ms: 5, count: 3 },
                TimeBucket { from_ms: 5, to_ms: 10, count: 0 },
            ],
        };
        let text = show(&NodeDistribution {
            run: "r".to_owned(),
            identifier: "n".to_owned(),
            run_times,
            waiting_times: TimeDistribution::default(),
            slowest: vec![SlowState { path: "a.n[2]".to_owned(), run_ms: 1_500 }],
            retried: 1,
            retries: 2,
            sample: Sample { examined: 4, of: 9 },
        });
        for part in [
            "1.5 s",
            "2 ms to         5 ms        3 █",
            "5 ms to        10 ms        0\n",
            "a.n[2]",
            "1 state was retried, 2 times",
            "from 4 of 9 states",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
