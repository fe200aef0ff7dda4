//! Reads pages of a list and joins them: all of a short list, or as many items as people ask for.

use std::time::{Duration, Instant};

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

/// The maximum number of items that a command lists.
pub const MAX_ITEMS: i64 = 100_000;

/// The largest page of a host.
const MAX_PAGE_ITEMS: usize = 1000;

/// The time for which a command looks for items. A host answers with a short page, and where to
/// continue, if few items meet a filter.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads pages of a list, whose items are in the member `key`, until there are `limit` items, the
/// list ends or a search takes too long.
pub fn read_up_to<'a>(
    call: impl Fn() -> Call<'a>,
    key: &str,
    limit: u32,
    after: Option<&str>,
) -> Result<Answer, Error> {
    let (begun, limit) = (Instant::now(), limit as usize);
    let page = |items: usize, after: Option<&str>| {
        let size = (limit - items).min(MAX_PAGE_ITEMS).to_string();
        call().query(&[("limit", Some(size)), ("after", after.map(str::to_owned))]).send()
    };
    let first = page(0, after)?;
    let mut joined: Value = first.value()?;
    if joined["next"].is_null() || joined[key].as_array().map_or(0, Vec::len) >= limit {
        return Ok(first);
    }
    let mut items = take_items(&mut joined, key);
    while items.len() < limit && begun.elapsed() < SEARCH_TIMEOUT {
        let Some(next) = joined["next"].as_str().map(str::to_owned) else { break };
        joined = page(items.len(), Some(&next))?.value()?;
        if !joined.is_object() {
            break;
        }
        items.append(&mut take_items(&mut joined, key));
    }
    joined[key] = Value::Array(items);
    Ok(Answer::from_value(&joined))
}

/// Takes the items out of a page.
fn take_items(page: &mut Value, key: &str) -> Vec<Value> {
    match page[key].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}
