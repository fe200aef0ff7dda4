//! Reads all pages of a list and joins them. Not here: lists of which people ask for a
//! part (`run list`).

use serde_json::Value;

use crate::client::{Answer, Call};
use crate::error::Error;

/// The most pages to read, so that a hostile host cannot send pages forever.
const MAX_PAGES: u32 = 10_000;

/// Reads every page of a list, whose items are in the member `key`.
pub fn all<'a>(call: impl Fn() -> Call<'a>, key: &str) -> Result<Answer, Error> {
    let first = call().send()?;
    let mut page: Value = first.value()?;
    if page["next"].is_null() {
        return Ok(first);
    }
    let mut items = taken(&mut page, key);
    for _ in 1..MAX_PAGES {
        let Some(next) = page["next"].as_str() else { break };
        page = call().query(&[("after", Some(next.to_owned()))]).send()?.value()?;
        items.append(&mut taken(&mut page, key));
    }
    page[key] = Value::Array(items);
    Ok(Answer::of(&page))
}

fn taken(page: &mut Value, key: &str) -> Vec<Value> {
    match page[key].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}
