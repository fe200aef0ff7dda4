//! Runs as people name them: by their whole id, by its first digits, or as the latest one.
//!
//! Not here: the search for the run that is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{Millis, RunId};

/// The word for the run of a namespace that was started last.
const LATEST: &str = "latest";

/// The fewest digits of a prefix.
const MIN_PREFIX_DIGITS: usize = 4;

/// The digits of an id, and those that tell its time.
const ID_DIGITS: usize = 32;
const TIME_DIGITS: usize = 12;

/// A reference to one run of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RunRef {
    /// The whole id.
    Id(RunId),
    /// The first digits of an id.
    Prefix(RunPrefix),
    /// The run that was started last.
    Latest,
}

/// The first hexadecimal digits of a run's id, in lower case and without dashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPrefix(String);

/// A text that names no run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a valid run: give its id, the first digits of it (at least {MIN_PREFIX_DIGITS}) or {LATEST}; \
     list runs with `exosphere run list`"
)]
pub struct BadRunRef;

impl RunPrefix {
    /// Returns whether an id begins with the prefix.
    pub fn matches(&self, id: RunId) -> bool {
        id.0.as_simple().to_string().starts_with(&self.0)
    }

    /// Returns the first and the last time that an id with this prefix can tell. (Ids of runs begin
    /// with the milliseconds since 1970.)
    pub fn times(&self) -> (Millis, Millis) {
        let known = &self.0[..self.0.len().min(TIME_DIGITS)];
        let time = |fill: &str| {
            let digits = format!("{known}{}", fill.repeat(TIME_DIGITS - known.len()));
            Millis::from_str_radix(&digits, 16).unwrap_or_default()
        };
        (time("0"), time("f"))
    }
}

impl fmt::Display for RunPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RunRef {
    type Err = BadRunRef;

    fn from_str(text: &str) -> Result<Self, BadRunRef> {
        if text == LATEST {
            return Ok(RunRef::Latest);
        }
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        if text.len() > ID_DIGITS + 4 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadRunRef);
        }
        match digits.len() {
            ID_DIGITS => Ok(RunRef::Id(RunId(Uuid::parse_str(&digits).map_err(|_| BadRunRef)?))),
            MIN_PREFIX_DIGITS..ID_DIGITS => {
                Ok(RunRef::Prefix(RunPrefix(digits.to_ascii_lowercase())))
            }
            _ => Err(BadRunRef),
        }
    }
}

impl TryFrom<String> for RunRef {
    type Error = BadRunRef;

    fn try_from(text: String) -> Result<Self, BadRunRef> {
        text.parse()
    }
}

impl From<RunRef> for String {
    fn from(reference: RunRef) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for RunRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunRef::Id(id) => id.fmt(f),
            RunRef::Prefix(prefix) => prefix.fmt(f),
            RunRef::Latest => f.write_str(LATEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0195b7f0-0000-7000-8000-00000000000a";

    #[test]
    fn a_prefix_matches_ids_that_begin_with_it() {
        let id = RunId(ID.parse().unwrap());
        assert_eq!(ID.parse(), Ok(RunRef::Id(id)));
        assert_eq!("latest".parse(), Ok(RunRef::Latest));
        for (text, matches) in [
            ("0195b7f0", true),
            ("0195B7F0-00", true),
            ("0195b7f00000700", true),
            ("0195b7f1", false),
        ] {
            let Ok(RunRef::Prefix(prefix)) = text.parse() else { panic!("{text} is no prefix") };
            assert_eq!(prefix.matches(id), matches, "{text}");
            let (from, to) = prefix.times();
            assert_eq!((from..=to).contains(&0x0195_b7f0_0000), matches, "{text}");
        }
    }

    #[test]
    fn malformed_references_are_refused() {
        for text in ["", "019", "newest", "0195b7f0/1", "../plugins", &format!("{ID}0"), "--------"]
        {
            assert_eq!(text.parse::<RunRef>(), Err(BadRunRef), "{text}");
        }
    }
}
