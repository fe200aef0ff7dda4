//! The report: one JSON file with every value, one Markdown table of medians.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::machine::Machine;
use crate::results::{Measurement, Results};

/// All results, and the machine.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    rounds: u32,
    notes: Vec<String>,
    figures: Vec<Summary>,
}

/// A measurement with its median and spread.
#[derive(Debug, Serialize)]
struct Summary {
    #[serde(flatten)]
    measurement: Measurement,
    median: f64,
    least: f64,
    most: f64,
}

impl Report {
    pub fn new(machine: Machine, rounds: u32, notes: Vec<String>, results: Results) -> Report {
        let summary = |measurement: Measurement| {
            let (least, most) = measurement.spread();
            Summary { median: measurement.median(), least, most, measurement }
        };
        Report { machine, rounds, notes, figures: results.0.into_iter().map(summary).collect() }
    }

    /// Writes `report.json` and `report.md`, and prints the latter.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("report.json"), serde_json::to_vec_pretty(self)?)?;
        let markdown = self.markdown()?;
        fs::write(folder.join("report.md"), &markdown)?;
        println!("{markdown}\nwritten to {}", folder.join("report.{json,md}").display());
        Ok(())
    }

    fn markdown(&self) -> Result<String> {
        let mut text = format!("{}\n\n", self.machine);
        writeln!(text, "Medians of {} interleaved rounds.\n", self.rounds)?;
        writeln!(text, "| load | on | unit | median | least | most |")?;
        writeln!(text, "|---|---|---|--:|--:|--:|")?;
        for Summary { measurement, median, least, most } in &self.figures {
            let [median, least, most] = [*median, *least, *most].map(number);
            let Measurement { load, subject, unit, .. } = measurement;
            writeln!(
                text,
                "| {load} | {subject} | {} | {median} | {least} | {most} |",
                unit.name()
            )?;
        }
        for note in &self.notes {
            writeln!(text, "\n{note}")?;
        }
        Ok(text)
    }
}

/// Formats a value with at least three significant digits.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}
