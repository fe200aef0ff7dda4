//! Reads all pages of a list and joins them. Not here: lists that people read page by
//! page (`run list`).

use serde_json::Value;

use crate::client::{Answer, Call};
use crate::error::Error;

/// The maximum number of pages to read: a hostile host could send pages forever.
const MAX_PAGES: u32 = 10_000;

/// Reads every page of a list, whose items are in the member `key`.
pub fn read_all<'a>(call: impl Fn() -> Call<'a>, key: &str) -> Result<Answer, Error> {
    let first = call().send()?;
    let mut page: Value = first.value()?;
    if page["next"].is_null() {
        return Ok(first);
    }
    let mut items = take_items(&mut page, key);
    for _ in 1..MAX_PAGES {
        let Some(next) = page["next"].as_str() else { break };
        page = call().query(&[("after", Some(next.to_owned()))]).send()?.value()?;
        items.append(&mut take_items(&mut page, key));
    }
    page[key] = Value::Array(items);
    Ok(Answer::from_value(&page))
}

/// Takes the items out of a page.
fn take_items(page: &mut Value, key: &str) -> Vec<Value> {
    match page[key].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}
