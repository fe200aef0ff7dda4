//! The run's key-value data: strings, shared by all states of the run.
//!
//! Writes are buffered and commit together with the outcome, be it outputs, a prune or
//! a requeue; the writes of a failed attempt are dropped. The first read of a key fixes
//! the value that this attempt sees, and the attempt sees its own writes. If another
//! state changes a key that this attempt has read and then [`set`]s or [`remove`]s, the
//! attempt runs again; an [`increment`] never conflicts.
//!
//! A key is not empty and contains neither `.` nor NUL. An invalid key, or more data
//! than the limits allow, ends the attempt immediately as a failure.
//!
//! ```
//! use exosphere_sdk::prelude::*;
//!
//! fn remember(name: &str) -> Result<u32> {
//!     store::increment("greeted", 1);
//!     store::set("last", name);
//!     // Nothing, or a number; an error if it is something else.
//!     Ok(store::parse("limit")?.unwrap_or(10))
//! }
//! # use exosphere_sdk::testing::Host;
//! # let mut host = Host::new().store("limit", "7");
//! # assert_eq!(host.within(|| remember("Ann")), Ok(7));
//! # assert_eq!(host.stored("last"), Some("Ann"));
//! ```

use std::fmt::Display;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::imports::store as host;
use crate::{Error, Result};

/// Returns the value of a key.
pub fn get(key: &str) -> Option<String> {
    host::get(key)
}

/// Sets a key.
pub fn set(key: &str, value: impl AsRef<str>) {
    host::set(key, value.as_ref());
}

/// Removes a key, if it exists.
pub fn remove(key: &str) {
    host::remove(key);
}

/// Returns all keys, in order. Counts as a read of every key.
pub fn keys() -> Vec<String> {
    host::keys()
}

/// Adds to a key that holds a whole number; a missing key counts as 0. Increments of
/// parallel states merge at commit and never conflict, which is why the sum is not
/// returned. If the key holds anything else, or the sum does not fit in 64 bits, the
/// attempt fails.
pub fn increment(key: &str, delta: i64) {
    host::increment(key, delta);
}

/// Returns the value of a key, parsed as a number or any other type.
///
/// # Errors
/// If there is a value and it cannot be parsed.
pub fn parse<T>(key: &str) -> Result<Option<T>>
where
    T: FromStr<Err: Display>,
{
    let Some(text) = get(key) else { return Ok(None) };
    text.parse().map(Some).map_err(|error| unfit(key, error))
}

/// Returns the value of a key, parsed as JSON.
///
/// # Errors
/// If there is a value and it is not the JSON of a `T`.
pub fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>> {
    let Some(text) = get(key) else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| unfit(key, error))
}

/// Sets a key to a value as JSON.
///
/// # Errors
/// If the value cannot be written as JSON, for example a map whose keys are not
/// strings.
pub fn set_json<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<()> {
    set(key, serde_json::to_string(value)?);
    Ok(())
}

/// Returns a retryable error, since another state may correct the value.
fn unfit(key: &str, error: impl Display) -> Error {
    Error::new(format!("store key `{key}` holds something unexpected: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::testing::Host;

    #[test]
    fn store_values_round_trip() {
        let mut host = Host::new().store("n", "4").store("bad", "four");
        host.within(|| {
            set("a", "1");
            set("b", String::from("2"));
            assert_eq!((get("a"), get("b"), get("c")), (Some("1".into()), Some("2".into()), None));
            remove("a");
            remove("never");
            increment("n", 3);
            increment("new", -1);
            assert_eq!(keys(), ["b", "bad", "n", "new"]);
            assert_eq!(parse::<i64>("n"), Ok(Some(7)));
            assert_eq!(parse::<i64>("none"), Ok(None));
            let error = parse::<i64>("bad").unwrap_err();
            assert_eq!(
                error.message(),
                "store key `bad` holds something unexpected: invalid digit found in string"
            );
            assert!(error.is_retryable());
            Ok(())
        })
        .unwrap();
        assert_eq!(host.stored("new"), Some("-1"));
    }

    #[test]
    fn json_values_round_trip() {
        Host::new()
            .within(|| {
                set_json("list", &[1, 2])?;
                assert_eq!(get("list").as_deref(), Some("[1,2]"));
                assert_eq!(get_json::<Vec<u8>>("list"), Ok(Some(vec![1, 2])));
                assert_eq!(get_json::<Vec<u8>>("none"), Ok(None));
                assert!(get_json::<String>("list").is_err());
                let composite_keys = std::collections::BTreeMap::from([((1, 2), 3)]);
                assert!(set_json("odd", &composite_keys).is_err());
                Ok(())
            })
            .unwrap();
    }
}
