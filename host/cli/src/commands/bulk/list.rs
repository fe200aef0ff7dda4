//! `exosphere bulk list`: the bulk operations of a namespace, the newest first.

use exosphere_api_types::{BulkDetails, BulkList};
use reqwest::Method;

use crate::again::next_command;
use crate::client::Answer;
use crate::commands::Context;
use crate::commands::bulk::show::{filter_text, selected};
use crate::commands::pages::{MAX_ITEMS, read_up_to};
use crate::error::Error;
use crate::format::{cell, elapsed, table, utc};

/// List the bulk operations of the namespace, the newest first
///
/// An operation is listed for 30 days after its end.
#[derive(Debug, clap::Args)]
pub struct List {
    /// The maximum number of items
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=MAX_ITEMS))]
    limit: u32,
    /// Continue after an earlier page
    #[arg(long, value_name = "TOKEN")]
    after: Option<String>,
}

impl List {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let call = || context.client.call(Method::GET, &["bulk"]);
        let answer = read_up_to(call, "bulk", self.limit, self.after.as_deref())?;
        context.output.answer(&answer, show)
    }
}

fn show(answer: &Answer) -> Result<String, Error> {
    let page: BulkList = answer.read()?;
    let rows = page.bulk.iter().map(|bulk: &BulkDetails| {
        [
            cell(&bulk.bulk),
            cell(&bulk.action),
            cell(&bulk.status),
            cell(selected(bulk)),
            cell(bulk.failed),
            cell(utc(bulk.frozen_at)),
            elapsed(bulk.frozen_at, bulk.ended_at),
            cell(filter_text(&bulk.filter)),
        ]
    });
    let mut text =
        table(["ID", "ACTION", "STATUS", "SELECTED", "FAILED", "BEGAN", "TOOK", "FILTER"], rows);
    if let Some(next) = page.next {
        text.push_str(&format!("\n\nmore: {}", next_command("--after", &next)));
    }
    Ok(text)
}
