//! `exosphere run timeline`: how many states of a run ran over time.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use exosphere_api_types::{Timeline, TimelineSeries};
use reqwest::Method;

use crate::chart;
use crate::client::Answer;
use crate::commands::Context;
use crate::commands::run::state_ref::StateRef;
use crate::error::Error;
use crate::format::{duration, utc};
use crate::sanitize;
use crate::time::past;

/// The most bins that a host draws.
const MAX_BINS: i64 = 400;

/// The widest column of names.
const MAX_NAME_WIDTH: usize = 24;

/// The headings of the numbers after a chart, each as wide as its column.
const NUMBERS: &str = "     MAX    BEGAN   FAILED";

/// The mark of a time at which states were only waiting.
const WAITING: char = '·';

/// Show how many states of a run ran over time, by node or by host
///
/// Each line is a node or a host. A block is as high as the mean number of states that ran in its
/// time, compared with the most of that line (MAX); a dot means that states were due and none ran.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere run timeline latest
  exosphere run timeline RUN --by host
  exosphere run timeline RUN --since 10m --bins 40
  exosphere run timeline RUN --json")]
pub struct Timelines {
    /// The run
    run: StateRef,
    /// One line for each node, or for each host
    #[arg(long, default_value = "node", value_parser = PossibleValuesParser::new(["node", "host"]).map(String::from))]
    by: String,
    /// The maximum number of bins [default: as many as fit the terminal]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_BINS))]
    bins: Option<u32>,
    /// Begin at this time: a time ago, for example 15m, or a date (UTC) [default: the start of the
    /// run]
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<i64>,
    /// End at this time [default: the end of the run, or now]
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<i64>,
}

impl Timelines {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let run = self.run.run(context)?.to_string();
        let fitting = chart::width().saturating_sub(MAX_NAME_WIDTH + NUMBERS.len() + 1);
        let bins = self
            .bins
            .map_or(fitting.clamp(1, MAX_BINS as usize).to_string(), |bins| bins.to_string());
        let call = context.client.call(Method::GET, &["runs", &run, "timeline"]).query(&[
            ("by", Some(self.by.clone())),
            ("bins", Some(bins)),
            ("from", self.since.map(|time| time.to_string())),
            ("to", self.until.map(|time| time.to_string())),
        ]);
        context.output.answer(&call.send()?, |answer: &Answer| Ok(show(&answer.read()?)))
    }
}

/// Formats a timeline: a line for each series, and the scale below.
fn show(timeline: &Timeline) -> String {
    let names: Vec<String> = timeline.series.iter().map(name).collect();
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let name_width = widest.clamp(4, MAX_NAME_WIDTH);
    let bins = timeline.series.first().map_or(0, |series| series.running.len());
    let mut lines =
        vec![format!("{} {}{NUMBERS}", chart::fit("", name_width), chart::fit("", bins))];
    for (name, series) in names.iter().zip(&timeline.series) {
        let max = series.running.iter().copied().fold(0.0, f64::max);
        let waits = |at: usize| series.waiting.get(at).filter(|it| **it > 0.0).map(|_| WAITING);
        let (began, failed): (u64, u64) = (series.began.iter().sum(), series.failed.iter().sum());
        lines.push(format!(
            "{} {}{max:>8.1} {began:>8} {failed:>8}",
            chart::fit(name, name_width),
            chart::fit(&chart::blocks(&series.running, max, waits), bins),
        ));
    }
    let bin = duration(i64::try_from(timeline.bin_ms).unwrap_or(i64::MAX));
    let (from, to) = (utc(timeline.from), utc(timeline.to));
    lines.push(format!("\n{from} to {to}, {bin} a column"));
    lines.extend(timeline.notes.iter().map(|note| format!("note: {}", sanitize::line(note))));
    lines.join("\n")
}

/// Returns the name of a series.
fn name(series: &TimelineSeries) -> String {
    match (&series.identifier, series.host, series.members) {
        (Some(identifier), ..) => sanitize::line(identifier),
        (None, Some(host), _) => format!("host {host}"),
        (None, None, 1) => "unknown".to_owned(),
        (None, None, members) => format!("{members} others"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_has_a_line_for_each_series() {
        let series = |identifier: Option<&str>, host, running: &[f64]| TimelineSeries {
            identifier: identifier.map(str::to_owned),
            host,
            members: 1,
            running: running.to_vec(),
            waiting: vec![1.0, 0.0, 0.0],
            began: vec![1, 2, 0],
            ended: vec![0, 3, 0],
            failed: vec![0, 1, 0],
        };
        let timeline = Timeline {
            run: "r".to_owned(),
            by: Default::default(),
            from: 0,
            to: 3_000,
            bin_ms: 1_000,
            series: vec![
                series(Some("split\u{1b}"), None, &[0.0, 8.0, 1.0]),
                series(None, Some(2), &[0.5, 0.0, 0.0]),
            ],
            sample: Default::default(),
            notes: vec!["one".to_owned()],
        };
        let text = show(&timeline);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("split\\u{1b} ·█▁     8.0        3        1"), "{text}");
        assert!(lines[2].starts_with("host 2      █  "), "{text}");
        assert!(text.contains("1.0 s a column") && text.ends_with("note: one"), "{text}");
    }
}
