//! `exosphere graph stats`: the runs of a graph over time.

use exosphere_api_types::{GraphStats, StatsBin};
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::client::Answer;
use crate::commands::Context;
use crate::error::Error;
use crate::format::{bytes, cell, cpu_time, duration, optional_cell, table, utc};
use crate::time::past;

/// Show how the runs of a graph ended, how long they took, and what they cost
///
/// Runs count at the time of their start. Times are those of runs that succeeded or failed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  exosphere graph stats report
  exosphere graph stats report --since 24h --bins 24")]
pub struct Stats {
    /// The graph
    graph: Name,
    /// Only runs started at this time or later: a time ago, for example 15m, 2h, 7d, or a date
    /// (UTC)
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = past)]
    since: i64,
    /// Only runs started before this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<i64>,
    /// The maximum number of lines
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=400))]
    bins: u32,
}

impl Stats {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let path = ["graphs", self.graph.as_str(), "stats"];
        let call = context.client.call(Method::GET, &path).query(&[
            ("from", Some(self.since.to_string())),
            ("to", self.until.map(|time| time.to_string())),
            ("bins", Some(self.bins.to_string())),
        ]);
        context.output.answer(&call.send()?, |answer: &Answer| Ok(show(&answer.read()?)))
    }
}

fn show(stats: &GraphStats) -> String {
    let row = |name: String, bin: &StatsBin| {
        let ms = |ms: u64| duration(i64::try_from(ms).unwrap_or(i64::MAX));
        [
            cell(name),
            cell(bin.started),
            cell(bin.success),
            cell(bin.failed),
            cell(bin.cancelled),
            cell(bin.running),
            optional_cell(bin.success_rate.map(|rate| format!("{:.1} %", rate * 100.0))),
            optional_cell(bin.p50_ms.map(ms)),
            optional_cell(bin.p90_ms.map(ms)),
            optional_cell(bin.p99_ms.map(ms)),
            cell(cpu_time(bin.cpu_us)),
            cell(bytes(bin.peak_memory_bytes)),
        ]
    };
    let rows = stats.bins.iter().map(|bin| row(utc(bin.from), bin));
    let rows = rows.chain([row("all".to_owned(), &stats.total)]);
    let heading = [
        "STARTED FROM",
        "RUNS",
        "SUCCESS",
        "FAILED",
        "CANCELLED",
        "RUNNING",
        "RATE",
        "P50",
        "P90",
        "P99",
        "CPU",
        "MEMORY",
    ];
    let mut text = table(heading, rows);
    if stats.is_cut {
        let from = utc(stats.from);
        text.push_str(&format!("\n\nthere are more runs; those from {from} on are counted"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_have_a_line_for_each_bin() {
        let bin = |from, started| StatsBin {
            from,
            started,
            success: started,
            success_rate: Some(0.995),
            p50_ms: Some(1_200),
            cpu_us: 2_500_000,
            peak_memory_bytes: 1 << 20,
            ..StatsBin::default()
        };
        let text = show(&GraphStats {
            graph: "g".to_owned(),
            from: 0,
            to: 120_000,
            bin_ms: 60_000,
            total: bin(0, 7),
            bins: vec![bin(0, 3), bin(60_000, 4)],
            is_cut: true,
        });
        for part in
            ["1970-01-01 00:01:00Z", "99.5 %", "1.2 s", "2.5 s", "1.00 MiB", "there are more"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("all")).count(), 1);
    }
}
