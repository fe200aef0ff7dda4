//! `exosphere bulk show`: a bulk operation with its progress.

use exosphere_api_types::{AnyJson, BulkDetails};
use exosphere_domain::bulk::BulkRef;
use serde_json::Value;

use crate::commands::Context;
use crate::commands::bulk::read;
use crate::error::Error;
use crate::format::{cell, elapsed, record, utc};
use crate::sanitize;

/// Show a bulk operation with its progress
#[derive(Debug, clap::Args)]
pub struct Show {
    /// The operation: its id, the first digits of it, or latest
    #[arg(value_name = "ID")]
    bulk: BulkRef,
}

impl Show {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let (answer, bulk) = read(context, &self.bulk.to_string())?;
        context.output.answer(&answer, |_| Ok(summary(&bulk)))
    }
}

/// Describes an operation.
pub fn summary(bulk: &BulkDetails) -> String {
    let mut text = record([
        ("ID", cell(&bulk.bulk)),
        ("ACTION", cell(&bulk.action)),
        ("STATUS", cell(&bulk.status)),
        ("SELECTED", cell(selected(bulk))),
        ("DONE", cell(bulk.done)),
        ("SKIPPED", cell(bulk.skipped)),
        ("FAILED", cell(bulk.failed)),
        ("BEGAN", cell(utc(bulk.frozen_at))),
        ("TOOK", elapsed(bulk.frozen_at, bulk.ended_at)),
    ]);
    text.push_str(&format!("\n\nruns with {}", filter_text(&bulk.filter)));
    if let Some(by) = &bulk.by {
        text.push_str(&format!("\nby: {}", sanitize::line(by)));
    }
    if !bulk.reason.is_empty() {
        text.push_str(&format!("\nreason: {}", sanitize::line(&bulk.reason)));
    }
    text
}

/// Formats the number of selected runs, and of those expected while the operation runs.
pub fn selected(bulk: &BulkDetails) -> String {
    let more = if bulk.expected.exact { "" } else { "+" };
    match bulk.ended_at {
        Some(_) => bulk.selected.to_string(),
        None => format!("{}/{}{more}", bulk.selected, bulk.expected.runs),
    }
}

/// Formats a filter: its conditions, one after the other.
pub fn filter_text(filter: &AnyJson) -> String {
    let Value::Object(members) = &filter.0 else { return sanitize::line(&filter.to_string()) };
    let mut conditions = Vec::new();
    for (key, value) in members {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(time) if key.starts_with("created_") => {
                    time.as_i64().map_or_else(|| time.to_string(), utc)
                }
                other => other.to_string(),
            };
            conditions.push(sanitize::line(&format!("{key}={text}")));
        }
    }
    conditions.join(" ")
}
