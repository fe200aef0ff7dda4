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

/// Reads up to `limit` items of a list from a cursor on. A page of a host may be shorter than it is
/// asked for.
pub fn read_up_to<'a>(
    call: impl Fn() -> Call<'a>,
    key: &str,
    limit: u32,
    mut after: Option<String>,
) -> Result<Answer, Error> {
    let mut items = Vec::new();
    for _ in 0..MAX_PAGES {
        let left = limit.saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX));
        let query = [("after", after.take()), ("limit", Some(left.to_string()))];
        let answer = call().query(&query).send()?;
        let mut page: Value = answer.value()?;
        let next = page["next"].as_str().map(str::to_owned);
        let first = take_items(&mut page, key);
        if items.is_empty() && (next.is_none() || first.len() as u64 >= u64::from(left)) {
            return Ok(answer);
        }
        items.extend(first);
        if next.is_none() || items.len() as u64 >= u64::from(limit) {
            page[key] = Value::Array(items);
            return Ok(Answer::from_value(&page));
        }
        after = next;
    }
    Err(Error::Internal("the host answers with empty pages only".to_owned()))
}

/// Takes the items out of a page.
fn take_items(page: &mut Value, key: &str) -> Vec<Value> {
    match page[key].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}
