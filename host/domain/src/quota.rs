//! Quotas of a namespace: what it may hold, and how fast it may start runs. A namespace without
//! quotas has no bounds but the limits of its attempts.
//!
//! Not here: limits of one attempt or run (`limits`), and the counts that quotas are compared with.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::graph::problems::{nearest_or_all, quoted};

/// The largest value of a quota. It leaves room for sums in a database.
const MAX_VALUE: u64 = 1 << 60;

macro_rules! quotas {
    ($($(#[$doc:meta])* $variant:ident $name:literal $what:literal;)*) => {
        /// A quota of a namespace.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Quota { $($(#[$doc])* $variant,)* }

        impl Quota {
            /// Every quota, in the order of the table.
            pub const ALL: &[Quota] = &[$(Quota::$variant,)*];

            /// Returns the name of the quota in the API, the CLI and messages.
            pub fn name(self) -> &'static str {
                match self { $(Quota::$variant => $name,)* }
            }

            /// Returns what the quota counts.
            pub fn what(self) -> &'static str {
                match self { $(Quota::$variant => $what,)* }
            }
        }
    };
}

quotas! {
    /// Plugins, by name.
    Plugins "plugins" "plugins";
    /// Bytes of all uploads of plugins.
    PluginBytes "plugin_bytes" "bytes of plugins";
    /// Graphs.
    Graphs "graphs" "graphs";
    /// Revisions of all graphs.
    Revisions "revisions" "revisions of graphs";
    /// Starts of runs in a minute, on one host.
    RunsPerMinute "runs_per_minute" "starts in a minute";
    /// States of running runs that have not ended.
    OpenStates "open_states" "open states";
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The reason why a text or a number is not a quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadQuota(String);

impl FromStr for Quota {
    type Err = BadQuota;

    fn from_str(name: &str) -> Result<Self, BadQuota> {
        let known = Quota::ALL.iter().copied().find(|quota| quota.name() == name);
        known.ok_or_else(|| {
            let names: Vec<_> = Quota::ALL.iter().map(|quota| quota.name()).collect();
            let hint = nearest_or_all(name, &names);
            BadQuota(format!("there is no quota {}; {hint}", quoted(name)))
        })
    }
}

/// A set of quotas with their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuotaValues(BTreeMap<Quota, u64>);

impl QuotaValues {
    /// Returns the value of a quota, if the set has one.
    pub fn get(&self, quota: Quota) -> Option<u64> {
        self.0.get(&quota).copied()
    }

    /// Iterates over the quotas with their values.
    pub fn iter(&self) -> impl Iterator<Item = (Quota, u64)> + '_ {
        self.0.iter().map(|(quota, value)| (*quota, *value))
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the breach of a quota by `used` and `more`, if there is one.
    pub fn breach(&self, quota: Quota, used: u64, more: u64) -> Option<QuotaBreach> {
        let value = self.get(quota)?;
        (used.saturating_add(more) > value).then_some(QuotaBreach { quota, value, used })
    }

    fn add(&mut self, quota: Quota, value: u64) -> Result<(), BadQuota> {
        if value > MAX_VALUE {
            return Err(BadQuota(format!("`{quota}` can be from 0 to {MAX_VALUE}, not {value}")));
        }
        self.0.insert(quota, value);
        Ok(())
    }
}

impl crate::json::Typed for QuotaValues {}

impl FromIterator<(Quota, u64)> for QuotaValues {
    fn from_iter<I: IntoIterator<Item = (Quota, u64)>>(values: I) -> Self {
        QuotaValues(values.into_iter().collect())
    }
}

impl Serialize for QuotaValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(quota, value)| (quota.name(), value)))
    }
}

impl<'de> Deserialize<'de> for QuotaValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut values = QuotaValues::default();
        for (name, value) in BTreeMap::<String, u64>::deserialize(deserializer)? {
            let quota = name.parse().map_err(de::Error::custom)?;
            values.add(quota, value).map_err(de::Error::custom)?;
        }
        Ok(values)
    }
}

/// Parses one quota with its value from `name=value`.
impl FromStr for QuotaValues {
    type Err = BadQuota;

    fn from_str(text: &str) -> Result<Self, BadQuota> {
        let bad = || BadQuota(format!("{text:?} is not of the form NAME=NUMBER"));
        let (name, value) = text.split_once('=').ok_or_else(bad)?;
        let quota = name.trim().parse()?;
        let mut values = QuotaValues::default();
        values.add(quota, value.trim().parse().map_err(|_| bad())?)?;
        Ok(values)
    }
}

/// A request that a quota forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaBreach {
    /// The quota.
    pub quota: Quota,
    /// The value of the quota.
    pub value: u64,
    /// The amount that the namespace has already.
    pub used: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{from_text, from_value};

    #[test]
    fn quotas_are_read_by_name() {
        let values: QuotaValues = from_text(r#"{"graphs":2,"runs_per_minute":0}"#).unwrap();
        assert_eq!(values.get(Quota::Graphs), Some(2));
        assert_eq!(values.get(Quota::Plugins), None);
        let text = serde_json::to_value(&values).unwrap();
        assert_eq!(from_value::<QuotaValues>(text).unwrap(), values);
        assert_eq!("graphs = 7".parse::<QuotaValues>().unwrap().get(Quota::Graphs), Some(7));
        for invalid in ["graphs", "graphs=-1", "graphs=x", "graph=1", "graphs=18446744073709551615"]
        {
            assert!(invalid.parse::<QuotaValues>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn a_quota_is_breached_above_its_value() {
        let values: QuotaValues = [(Quota::Graphs, 2)].into_iter().collect();
        assert_eq!(values.breach(Quota::Graphs, 1, 1), None);
        let breach = QuotaBreach { quota: Quota::Graphs, value: 2, used: 2 };
        assert_eq!(values.breach(Quota::Graphs, 2, 1), Some(breach));
        assert!(values.breach(Quota::Graphs, u64::MAX, 1).is_some());
        assert_eq!(values.breach(Quota::Plugins, u64::MAX, 1), None);
    }
}
