//! `exosphere audit list`: the latest changes, or those before a cursor.

use std::fmt::Write as _;

use exosphere_api_types::AuditList;
use exosphere_domain::api_key::ApiKeyId;
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::again::next_command;
use crate::commands::Context;
use crate::error::Error;
use crate::format::{cell, optional_cell, table, utc};

/// List the changes that callers made, the newest first
///
/// Starts of runs are not here: each run names the key that started it.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only changes with the key of this id
    #[arg(long, value_name = "ID")]
    key: Option<ApiKeyId>,
    /// Only changes in this namespace
    #[arg(long = "in", value_name = "NAMESPACE")]
    in_namespace: Option<Name>,
    /// Only changes of this kind, for example "graph apply"
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// The number of changes to list
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Begin after a list that ended with this number
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,
}

impl List {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let call = context.client.of_all(Method::GET, &["audit"]).query(&[
            ("key", self.key.map(|key| key.to_string())),
            ("namespace", self.in_namespace.as_ref().map(Name::to_string)),
            ("action", self.action.clone()),
            ("limit", Some(self.limit.to_string())),
            ("before", self.before.map(|before| before.to_string())),
        ]);
        let end = call.send();
        let end = end.and_then(|it| context.output.answer(&it, |it| Ok(show(it.read()?))));
        match &self.in_namespace {
            Some(namespace) => context.done_in(namespace, end),
            None => context.done(end),
        }
    }
}

fn show(list: AuditList) -> String {
    let rows = list.changes.into_iter().map(|change| {
        [
            cell(utc(change.at)),
            optional_cell(change.key),
            optional_cell(change.address),
            cell(change.action),
            optional_cell(change.namespace),
            cell(change.object),
        ]
    });
    let mut text = table(["TIME", "KEY", "ADDRESS", "ACTION", "NAMESPACE", "OBJECT"], rows);
    if let Some(next) = list.next {
        let _ = write!(text, "\n\nolder: {}", next_command("--before", &next));
    }
    text
}
