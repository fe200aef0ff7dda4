//! Retry policies: their form in a graph file, the number of retries of a failed state, and the
//! backoff between them.
//!
//! Not here: which failures are retried at all; see
//! [`crate::failure::Failure::is_retried`]. Nor the minimum delay of a state
//! that repeats immediately many times; see [`crate::repeat`].

use serde_json::{Value, json};

use crate::graph::problems::{Object, Problems, kind, quoted, string, whole_number};
use crate::ids::Millis;

/// The longest delay, in milliseconds. It is about a century: added to the time of any clock,
/// it still gives a valid time.
pub const LONGEST_DELAY: Millis = 36_525 * 24 * 60 * 60 * 1000;

/// The maximum number of retries that a policy may allow.
pub const MAX_RETRIES: u32 = 1_000_000;

/// The largest exponent of a policy.
pub const MAX_EXPONENT: f64 = 1000.0;

/// Keys of a retry policy in a template.
pub(crate) const RETRY_KEYS: [&str; 5] =
    ["max_retries", "strategy", "backoff_factor", "exponent", "max_delay"];

/// The growth of the backoff delay from one retry to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Growth {
    /// `backoff_factor * exponent^(n-1)`
    Exponential,
    /// `backoff_factor * n`
    Linear,
    /// `backoff_factor`
    Fixed,
}

/// The random share of a delay, so that states that failed together are not
/// retried together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Jitter {
    /// No randomness.
    None,
    /// The whole delay is random.
    Full,
    /// Half of the delay is random.
    Equal,
}

/// A backoff strategy, one of nine: a growth and a jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RetryStrategy {
    /// The growth of the delay.
    pub growth: Growth,
    /// The random share of the delay.
    pub jitter: Jitter,
}

impl RetryStrategy {
    /// All nine strategies with their names.
    pub const ALL: [(&'static str, RetryStrategy); 9] = [
        ("EXPONENTIAL", RetryStrategy::new(Growth::Exponential, Jitter::None)),
        ("EXPONENTIAL_FULL_JITTER", RetryStrategy::new(Growth::Exponential, Jitter::Full)),
        ("EXPONENTIAL_EQUAL_JITTER", RetryStrategy::new(Growth::Exponential, Jitter::Equal)),
        ("LINEAR", RetryStrategy::new(Growth::Linear, Jitter::None)),
        ("LINEAR_FULL_JITTER", RetryStrategy::new(Growth::Linear, Jitter::Full)),
        ("LINEAR_EQUAL_JITTER", RetryStrategy::new(Growth::Linear, Jitter::Equal)),
        ("FIXED", RetryStrategy::new(Growth::Fixed, Jitter::None)),
        ("FIXED_FULL_JITTER", RetryStrategy::new(Growth::Fixed, Jitter::Full)),
        ("FIXED_EQUAL_JITTER", RetryStrategy::new(Growth::Fixed, Jitter::Equal)),
    ];

    const fn new(growth: Growth, jitter: Jitter) -> Self {
        RetryStrategy { growth, jitter }
    }

    /// Returns the name of the strategy.
    pub fn as_str(self) -> &'static str {
        let found = RetryStrategy::ALL.iter().find(|(_, strategy)| *strategy == self);
        found.map_or("EXPONENTIAL", |(name, _)| name)
    }

    /// Parses the name of a strategy.
    pub fn parse(name: &str) -> Option<Self> {
        RetryStrategy::ALL.iter().find(|(known, _)| *known == name).map(|(_, strategy)| *strategy)
    }
}

/// A retry policy: the number of retries of a failed state, and their delays.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// The maximum number of retries after the first attempt.
    pub max_retries: u32,
    /// The strategy that computes the delays.
    pub strategy: RetryStrategy,
    /// The base of all delays, in milliseconds.
    pub backoff_factor: u64,
    /// The base of exponential growth, from 1 to [`MAX_EXPONENT`].
    pub exponent: f64,
    /// The cap of a delay before its jitter, in milliseconds; so no delay is
    /// longer.
    pub max_delay: Option<u64>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            max_retries: 3,
            strategy: RetryStrategy::new(Growth::Exponential, Jitter::None),
            backoff_factor: 2000,
            exponent: 2.0,
            max_delay: None,
        }
    }
}

impl RetryPolicy {
    /// Returns the milliseconds to wait before retry `n`, from 1. `random` is uniform in [0,
    /// 1). The base is capped at `max_delay` before the jitter is applied, so that states that
    /// have all reached the cap are still spread out.
    pub fn delay(&self, n: u32, random: f64) -> Millis {
        let base = self.base(n).min(self.cap() as f64);
        let delay = match self.strategy.jitter {
            Jitter::None => base,
            Jitter::Full => base * random,
            Jitter::Equal => base / 2.0 + base / 2.0 * random,
        };
        // The cast saturates.
        delay.round() as Millis
    }

    /// Returns the delay from growth alone, without cap and jitter.
    fn base(&self, n: u32) -> f64 {
        let factor = self.backoff_factor as f64;
        let base = match self.strategy.growth {
            Growth::Exponential => factor * self.exponent.powf(f64::from(n.saturating_sub(1))),
            Growth::Linear => factor * f64::from(n),
            Growth::Fixed => factor,
        };
        // Zero times infinity is the only way to get NaN here.
        if base.is_nan() { 0.0 } else { base }
    }

    /// Returns the cap of the delay: `max_delay`, at most [`LONGEST_DELAY`].
    fn cap(&self) -> Millis {
        let cap = self
            .max_delay
            .map_or(LONGEST_DELAY, |cap| Millis::try_from(cap).unwrap_or(Millis::MAX));
        cap.clamp(0, LONGEST_DELAY)
    }

    /// Reads a policy from a template. A missing field takes its value from
    /// `base`.
    pub(crate) fn read(
        value: &Value,
        path: &str,
        base: &RetryPolicy,
        problems: &mut Problems,
    ) -> Self {
        let mut policy = base.clone();
        let Some(object) = Object::read(value, path, &RETRY_KEYS, problems) else {
            return policy;
        };
        let retries = |value| whole_number(value, 0, u64::from(MAX_RETRIES));
        if let Some(retries) = object.read_as("max_retries", problems, retries) {
            policy.max_retries = retries as u32;
        }
        if let Some(name) = object.read_as("strategy", problems, string) {
            match RetryStrategy::parse(name) {
                Some(strategy) => policy.strategy = strategy,
                None => unknown_strategy(name, object.at("strategy"), problems),
            }
        }
        let millis = |value| whole_number(value, 0, LONGEST_DELAY as u64);
        if let Some(factor) = object.read_as("backoff_factor", problems, millis) {
            policy.backoff_factor = factor;
        }
        if let Some(exponent) = object.read_as("exponent", problems, exponent) {
            policy.exponent = exponent;
        }
        // An explicit null lifts the cap of the graph's policy.
        match value.get("max_delay") {
            None => {}
            Some(Value::Null) => policy.max_delay = None,
            Some(_) => policy.max_delay = object.read_as("max_delay", problems, millis),
        }
        policy
    }

    /// Writes the policy as in a template, with every field.
    pub fn to_json(&self) -> Value {
        let exponent = if self.exponent.fract() == 0.0 {
            json!(self.exponent as u64)
        } else {
            json!(self.exponent)
        };
        json!({
            "max_retries": self.max_retries,
            "strategy": self.strategy.as_str(),
            "backoff_factor": self.backoff_factor,
            "exponent": exponent,
            "max_delay": self.max_delay,
        })
    }
}

fn exponent(value: &Value) -> Result<f64, String> {
    value.as_f64().filter(|number| (1.0..=MAX_EXPONENT).contains(number)).ok_or_else(|| {
        format!("this is {}, and must be a number from 1 to {MAX_EXPONENT}", kind(value))
    })
}

fn unknown_strategy(name: &str, path: String, problems: &mut Problems) {
    let known = RetryStrategy::ALL.map(|(name, _)| name);
    problems.add_unknown(
        path,
        format_args!("there is no retry strategy {}", quoted(name)),
        name,
        known,
        format_args!("known strategies: {}", known.join(", ")),
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn policy(name: &str, max_delay: Option<u64>) -> RetryPolicy {
        let strategy = RetryStrategy::parse(name).unwrap();
        RetryPolicy {
            strategy,
            max_delay,
            backoff_factor: 100,
            exponent: 3.0,
            ..Default::default()
        }
    }

    #[test]
    fn delays_follow_the_strategy() {
        // Retries 1, 2 and 4, at random 0.0 and at random 0.5.
        let table = [
            ("EXPONENTIAL", [100, 300, 2700], [100, 300, 2700]),
            ("EXPONENTIAL_FULL_JITTER", [0, 0, 0], [50, 150, 1350]),
            ("EXPONENTIAL_EQUAL_JITTER", [50, 150, 1350], [75, 225, 2025]),
            ("LINEAR", [100, 200, 400], [100, 200, 400]),
            ("LINEAR_FULL_JITTER", [0, 0, 0], [50, 100, 200]),
            ("LINEAR_EQUAL_JITTER", [50, 100, 200], [75, 150, 300]),
            ("FIXED", [100, 100, 100], [100, 100, 100]),
            ("FIXED_FULL_JITTER", [0, 0, 0], [50, 50, 50]),
            ("FIXED_EQUAL_JITTER", [50, 50, 50], [75, 75, 75]),
        ];
        assert_eq!(table.len(), RetryStrategy::ALL.len());
        for (name, lowest, middle) in table {
            let policy = policy(name, None);
            assert_eq!([1, 2, 4].map(|n| policy.delay(n, 0.0)), lowest, "{name}");
            assert_eq!([1, 2, 4].map(|n| policy.delay(n, 0.5)), middle, "{name}");
            assert_eq!(policy.strategy.as_str(), name);
        }
    }

    #[test]
    fn a_capped_delay_keeps_its_jitter() {
        // The base of retry 4 is 2700, its cap 1000.
        let delays = |name: &str| [0.0, 0.1, 0.5].map(|at| policy(name, Some(1000)).delay(4, at));
        assert_eq!(delays("EXPONENTIAL"), [1000, 1000, 1000]);
        assert_eq!(delays("EXPONENTIAL_FULL_JITTER"), [0, 100, 500]);
        assert_eq!(delays("EXPONENTIAL_EQUAL_JITTER"), [500, 550, 750]);
    }

    #[test]
    fn retry_delays_saturate() {
        let huge =
            RetryPolicy { backoff_factor: u64::MAX, ..policy("EXPONENTIAL", Some(u64::MAX)) };
        assert_eq!(huge.delay(u32::MAX, 0.9), LONGEST_DELAY);
        let no_backoff = RetryPolicy { backoff_factor: 0, ..huge };
        assert_eq!(no_backoff.delay(u32::MAX, 0.9), 0);
        assert_eq!(no_backoff.delay(0, 0.0), 0);
    }

    #[test]
    fn a_policy_overrides_its_base() {
        let mut problems = Problems::default();
        let base = RetryPolicy { max_delay: Some(9), ..Default::default() };
        let read = RetryPolicy::read(&json!({"max_retries": 5}), "$.r", &base, &mut problems);
        assert_eq!(read, RetryPolicy { max_retries: 5, ..base.clone() });
        let lifted = RetryPolicy::read(&json!({"max_delay": null}), "$.r", &base, &mut problems);
        assert_eq!(lifted.max_delay, None);
        assert_eq!(problems.len(), 0);

        let invalid =
            json!({"max_retry": 1, "strategy": "LINEAR_JITTER", "exponent": 0.5, "max_delay": -1});
        RetryPolicy::read(&invalid, "$.r", &base, &mut problems);
        let found: Vec<_> = problems
            .into_list()
            .into_iter()
            .map(|p| format!("{}: {}", p.path, p.message))
            .collect();
        assert_eq!(
            found,
            [
                "$.r.max_retry: unknown key \"max_retry\"; did you mean \"max_retries\"?",
                "$.r.strategy: there is no retry strategy \"LINEAR_JITTER\"; known strategies: \
                 EXPONENTIAL, EXPONENTIAL_FULL_JITTER, EXPONENTIAL_EQUAL_JITTER, LINEAR, \
                 LINEAR_FULL_JITTER, LINEAR_EQUAL_JITTER, FIXED, FIXED_FULL_JITTER, FIXED_EQUAL_JITTER",
                "$.r.exponent: this is a number, and must be a number from 1 to 1000",
                "$.r.max_delay: this must be a whole number from 0 to 3155760000000",
            ]
        );
    }

    proptest! {
        #[test]
        fn delays_are_bounded_and_round_trip(
            at in 0..9usize,
            n in any::<u32>(),
            random in 0.0..1.0f64,
            backoff_factor in 0..=LONGEST_DELAY as u64,
            exponent in 1.0..50.0f64,
            max_delay in proptest::option::of(0..=LONGEST_DELAY as u64),
        ) {
            let (_, strategy) = RetryStrategy::ALL[at];
            let policy = RetryPolicy { max_retries: 1, strategy, backoff_factor, exponent, max_delay };
            let delay = policy.delay(n, random);
            prop_assert!((0..=max_delay.map_or(LONGEST_DELAY, |cap| cap as Millis)).contains(&delay));
            let without_jitter = RetryStrategy { jitter: Jitter::None, ..strategy };
            let base = RetryPolicy { strategy: without_jitter, ..policy.clone() }.delay(n, 0.0);
            prop_assert!(delay <= base);
            // The jitter is applied to the capped base, whatever the cap is.
            let share = match strategy.jitter {
                Jitter::None => 1.0,
                Jitter::Full => random,
                Jitter::Equal => 0.5 + random / 2.0,
            };
            prop_assert!((delay as f64 - base as f64 * share).abs() <= 1.5);

            let mut problems = Problems::default();
            let read = RetryPolicy::read(&policy.to_json(), "$", &RetryPolicy::default(), &mut problems);
            prop_assert_eq!(problems.len(), 0);
            prop_assert_eq!(read, policy);
        }
    }
}
