//! The limits of one attempt, as one table: every limit with its name, its
//! unit, its default and the resource that it bounds. The order of authority is
//! decided here too: the operator sets, and a namespace, a graph and a node may
//! only lower.
//!
//! Not here: enforcing the limits. That is the sandbox's work.

mod usage;
mod values;

use std::fmt;
use std::time::Duration;

use serde_json::json;

pub use usage::Usage;
pub use values::{LimitValues, NotALimit};

use crate::failure::{Failure, FailureKind};
use crate::ids::Name;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The unit of a limit's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// A plain number.
    Count,
    /// Milliseconds.
    Millis,
}

impl Unit {
    /// Formats a number of this unit for people.
    pub fn show(self, number: u64) -> String {
        match self {
            Unit::Bytes if number >= MIB && number.is_multiple_of(MIB) => {
                format!("{} MiB", number / MIB)
            }
            Unit::Bytes if number >= KIB && number.is_multiple_of(KIB) => {
                format!("{} KiB", number / KIB)
            }
            Unit::Bytes if number == 1 => "1 byte".to_owned(),
            Unit::Bytes => format!("{number} bytes"),
            Unit::Millis if number >= 1_000 && number.is_multiple_of(1_000) => {
                format!("{} s", number / 1_000)
            }
            Unit::Millis => format!("{number} ms"),
            Unit::Count => number.to_string(),
        }
    }
}

macro_rules! limits {
    ($(
        $(#[$doc:meta])*
        $variant:ident $name:literal $unit:ident $default:expr, $min:literal..=$max:expr,
        $bounded:literal;
    )*) => {
        /// A limit of an attempt.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Limit { $($(#[$doc])* $variant,)* }

        impl Limit {
            /// Every limit, in the order of the table.
            pub const ALL: &[Limit] = &[$(Limit::$variant,)*];

            /// Returns the limit's name in the API, the CLI and messages.
            pub fn name(self) -> &'static str {
                match self { $(Limit::$variant => $name,)* }
            }

            /// Returns the bounded resource, in words that follow "too much".
            pub fn bounded(self) -> &'static str {
                match self { $(Limit::$variant => $bounded,)* }
            }

            /// Returns the unit of the limit's value.
            pub fn unit(self) -> Unit {
                match self { $(Limit::$variant => Unit::$unit,)* }
            }

            /// Returns the host's default value.
            pub fn default(self) -> u64 {
                match self { $(Limit::$variant => $default,)* }
            }

            /// Returns the smallest and the largest value that the limit can be set to.
            pub fn range(self) -> std::ops::RangeInclusive<u64> {
                match self { $(Limit::$variant => $min..=$max,)* }
            }
        }
    };
}

limits! {
    /// Bytes of all linear memories together.
    MemoryBytes "memory_bytes" Bytes 128 * MIB, 0..=4096 * MIB, "memory";
    /// Elements of all tables together.
    TableElements "table_elements" Count 100_000, 0..=10_000_000, "table elements";
    /// Core instances of one component.
    Instances "instances" Count 100, 1..=1_000, "instances";
    /// Bytes of the stack, the same for every node of a host.
    StackBytes "stack_bytes" Bytes 512 * KIB, 65_536..=8 * MIB, "depth of calls, or size of their frames";
    /// Resource handles that are open at once.
    Handles "handles" Count 4_096, 0..=1_000_000, "open handles";
    /// CPU time.
    CpuMs "cpu_ms" Millis 5_000, 1..=86_400_000, "CPU time";
    /// Wall-clock time: the timeout.
    TimeoutMs "timeout_ms" Millis 30_000, 1..=86_400_000, "time";
    /// Calls of host functions.
    HostCalls "host_calls" Count 100_000, 0..=1_000_000_000, "calls of host functions";
    /// Bytes that the guest passes in one call of a host function.
    LiftedBytes "lifted_bytes" Bytes 4 * MIB, 1_024..=1024 * MIB, "bytes in one call of a host function";
    /// Bytes of the rendered inputs.
    InputBytes "input_bytes" Bytes 32 * MIB, 0..=1024 * MIB, "bytes of inputs";
    /// Bytes of host memory for the attempt's inputs, read and rendered, or for
    /// one of its outputs.
    JsonBytes "json_bytes" Bytes 256 * MIB, 1_048_576..=16_384 * MIB,
        "memory of the host for JSON, which takes many times its text";
    /// Bytes of all outputs together.
    OutputBytes "output_bytes" Bytes 32 * MIB, 0..=1024 * MIB, "bytes of all outputs";
    /// Bytes of one output.
    OutputBytesEach "output_bytes_each" Bytes 4 * MIB, 0..=1024 * MIB, "bytes of one output";
    /// Number of outputs.
    Outputs "outputs" Count 200_000, 0..=10_000_000, "number of outputs";
    /// Depth of nesting of one output.
    OutputDepth "output_depth" Count 64, 1..=120, "nesting of an output";
    /// Bytes of the log; the middle of a longer one is dropped, with a mark.
    LogBytes "log_bytes" Bytes 256 * KIB, 0..=64 * MIB, "bytes of the log";
    /// Lines of the log; the middle of a longer one is dropped, with a mark.
    LogLines "log_lines" Count 1_000, 0..=1_000_000, "lines of the log";
    /// Keys that a run's store may hold.
    StoreKeys "store_keys" Count 1_000, 0..=1_000_000, "keys in the store";
    /// Bytes of one value of the store.
    StoreValueBytes "store_value_bytes" Bytes 64 * KIB, 0..=64 * MIB, "bytes of one value in the store";
    /// Bytes of a run's store, keys and values.
    StoreBytes "store_bytes" Bytes 4 * MIB, 0..=1024 * MIB, "bytes in the store";
    /// Random bytes that one call may ask for.
    RandomBytes "random_bytes" Bytes 64 * KIB, 64..=16 * MIB, "random bytes in one call";
    /// HTTP requests.
    HttpCalls "http_calls" Count 16, 0..=100_000, "HTTP requests";
    /// Time of one HTTP request, from its start to the end of the response.
    HttpCallMs "http_call_ms" Millis 10_000, 1..=86_400_000, "time of one HTTP request";
    /// Bytes of the body of one HTTP request.
    HttpRequestBytes "http_request_bytes" Bytes 4 * MIB, 0..=1024 * MIB, "bytes of the body of one HTTP request";
    /// Bytes of the body of one HTTP response.
    HttpResponseBytes "http_response_bytes" Bytes 4 * MIB, 0..=1024 * MIB, "bytes of the body of one HTTP response";
    /// States of one run, including terminal ones.
    RunStates "run_states" Count 1_000_000, 1..=100_000_000, "states of the run";
}

impl Limit {
    /// Returns the limit of this name.
    pub fn parse(name: &str) -> Option<Limit> {
        Limit::ALL.iter().copied().find(|limit| limit.name() == name)
    }

    /// Returns the limit that a failure reports, if it is one of a limit or of the timeout.
    pub fn of_failure(failure: &Failure) -> Option<Limit> {
        match failure.kind {
            FailureKind::Timeout => Some(Limit::TimeoutMs),
            FailureKind::Limit => {
                failure.details.as_ref()?.get("limit")?.as_str().and_then(Limit::parse)
            }
            _ => None,
        }
    }

    /// Returns whether another attempt of the same work may stay below the
    /// limit, because usage depends on timing or on answers from outside. Usage
    /// that follows from the inputs and the program alone would only repeat.
    pub fn may_pass_on_retry(self) -> bool {
        match self {
            // Time, and the resources held while the node runs, vary between
            // attempts.
            Limit::CpuMs | Limit::TimeoutMs | Limit::MemoryBytes | Limit::TableElements => true,
            Limit::StackBytes | Limit::Handles | Limit::HostCalls => true,
            // The remote server may answer faster, or with less.
            Limit::HttpCalls | Limit::HttpCallMs | Limit::HttpResponseBytes => true,
            // Other states of the run change the contents of the store.
            Limit::StoreKeys | Limit::StoreBytes => true,
            // These never end an attempt: the middle of the log is dropped.
            Limit::LogBytes | Limit::LogLines => true,
            // The inputs are rendered from rows that cannot change.
            Limit::InputBytes | Limit::JsonBytes => false,
            // The node's outputs, and the bytes that it passes to the host.
            Limit::Outputs | Limit::OutputBytes | Limit::OutputBytesEach => false,
            Limit::OutputDepth | Limit::LiftedBytes | Limit::HttpRequestBytes => false,
            Limit::StoreValueBytes => false,
            // These follow from the program alone.
            Limit::Instances | Limit::RandomBytes => false,
            // The number of states of a run never shrinks.
            Limit::RunStates => false,
        }
    }

    fn at(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The level that set a limit. Each level may only lower the value of the level
/// before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The host: its defaults, or its operator's settings.
    Host,
    /// The namespace's own limits, set by an operator.
    Namespace,
    /// The graph, for all its nodes.
    Graph,
    /// The node in the graph, for itself.
    Node,
}

const COUNT: usize = Limit::ALL.len();

/// The limits of one attempt, each with the level that set it.
/// [`Limits::default`] is the host's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    values: [u64; COUNT],
    set_by: [Level; COUNT],
    /// The values of graphs and nodes that are not lower, and have no effect: the settings of the
    /// operator were lowered after the graph was applied.
    without_effect: [Option<u64>; COUNT],
    /// The namespace whose limits are applied, if it set any.
    namespace: Option<Name>,
}

impl Default for Limits {
    fn default() -> Self {
        let mut values = [0; COUNT];
        for limit in Limit::ALL {
            values[limit.at()] = limit.default();
        }
        Limits {
            values,
            set_by: [Level::Host; COUNT],
            without_effect: [None; COUNT],
            namespace: None,
        }
    }
}

impl Limits {
    /// Returns the value of a limit.
    pub fn get(&self, limit: Limit) -> u64 {
        self.values[limit.at()]
    }

    /// Returns a limit as a size in memory; saturates at `usize::MAX`.
    pub fn size(&self, limit: Limit) -> usize {
        usize::try_from(self.get(limit)).unwrap_or(usize::MAX)
    }

    /// Returns a limit as a duration.
    pub fn time(&self, limit: Limit) -> Duration {
        Duration::from_millis(self.get(limit))
    }

    /// Returns the level that set a limit.
    pub fn set_by(&self, limit: Limit) -> Level {
        self.set_by[limit.at()]
    }

    /// Returns these limits with one limit set by the operator of the host.
    pub fn with(mut self, limit: Limit, value: u64) -> Self {
        self.values[limit.at()] = value;
        self
    }

    /// Returns these limits with several limits set by the operator of the
    /// host.
    pub fn set(self, values: &LimitValues) -> Self {
        values.iter().fold(self, |limits, (limit, value)| limits.with(limit, value))
    }

    /// Lowers a limit. A value that is not lower changes nothing.
    pub fn lower(&mut self, level: Level, limit: Limit, value: u64) {
        if value < self.get(limit) {
            self.values[limit.at()] = value;
            self.set_by[limit.at()] = level;
        } else if value > self.get(limit) && level >= Level::Graph {
            self.without_effect[limit.at()] = Some(value);
        }
    }

    /// Lowers several limits. A value that is not lower changes nothing.
    pub fn lower_all(&mut self, level: Level, values: &LimitValues) {
        values.iter().for_each(|(limit, value)| self.lower(level, limit, value));
    }

    /// Lowers limits to those of a namespace. A value that is not lower changes
    /// nothing.
    pub fn lower_for(&mut self, namespace: &Name, values: &LimitValues) {
        if !values.is_empty() {
            self.namespace = Some(namespace.clone());
        }
        self.lower_all(Level::Namespace, values);
    }

    /// Returns, in words, the place where a limit can be changed, and the value of the graph that
    /// this one lowers.
    fn remedy(&self, limit: Limit) -> String {
        let place = self.place(limit);
        match self.without_effect[limit.at()] {
            Some(value) if self.set_by(limit) < Level::Graph => {
                format!("{place}; it lowers the {} of the graph", limit.unit().show(value))
            }
            _ => place,
        }
    }

    fn place(&self, limit: Limit) -> String {
        let namespace = self.namespace.as_ref().map_or("NAME", Name::as_str);
        match self.set_by(limit) {
            Level::Host => format!(
                "the operator of the host can raise it: `exosphere serve --limit {limit}=..`"
            ),
            Level::Namespace => format!(
                "it was set for this namespace, where an operator can raise it: `exosphere \
                 namespace set --limit {limit}=.. --namespace {namespace}`"
            ),
            Level::Graph => format!("it was set by `limits.{limit}` of the graph"),
            Level::Node if limit == Limit::TimeoutMs => {
                "it was set by `timeout_ms` of the node in the graph".to_owned()
            }
            Level::Node => format!("it was set by `limits.{limit}` of the node in the graph"),
        }
    }

    /// Returns the reason why a level below these may not set a limit to
    /// `value`; `None` if it may.
    pub fn forbids(&self, limit: Limit, value: u64) -> Option<String> {
        if limit == Limit::StackBytes {
            let remedy = self.remedy(limit);
            return Some(format!("`{limit}` is the same for all nodes of a host; {remedy}"));
        }
        let max = self.get(limit);
        (value > max).then(|| {
            let unit = limit.unit();
            format!(
                "limits can only be lowered: {} is more than {} (`{limit}`); {}",
                unit.show(value),
                unit.show(max),
                self.remedy(limit)
            )
        })
    }

    /// Returns the failure of an attempt that reached a limit.
    pub fn reached(&self, limit: Limit) -> Failure {
        let value = self.get(limit);
        let message = format!(
            "too much: {}; the limit is {} (`{limit}`). Let the node do less, or change the limit: {}",
            limit.bounded(),
            limit.unit().show(value),
            self.remedy(limit)
        );
        let failure = Failure::new(FailureKind::Limit, message)
            .with(json!({"limit": limit.name(), "value": value}));
        if limit.may_pass_on_retry() { failure } else { failure.into_final() }
    }

    /// Returns the failure of an attempt that exceeded its timeout.
    pub fn timed_out(&self) -> Failure {
        let limit = Limit::TimeoutMs;
        let value = self.get(limit);
        let message = format!(
            "the node did not end within {} (`{limit}`). Let it do less, or change the timeout: {}",
            limit.unit().show(value),
            self.remedy(limit)
        );
        Failure::new(FailureKind::Timeout, message).with(json!({"timeout_ms": value}))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_limit_has_a_valid_default() {
        for limit in Limit::ALL {
            assert_eq!(Limit::parse(limit.name()), Some(*limit));
            assert!(limit.range().contains(&limit.default()), "{limit}");
            assert_eq!(Limits::default().get(*limit), limit.default());
        }
    }

    #[test]
    fn documented_limits_match_the_table() {
        let page = include_str!("../../../docs/reference/limits.md");
        for limit in Limit::ALL {
            let row = format!("| `{limit}` | {} | ", limit.unit().show(limit.default()));
            assert!(page.contains(&row), "docs/reference/limits.md should say {row}");
        }
    }

    #[test]
    fn a_permanent_breach_is_final() {
        let is_retried = |limit| Limits::default().reached(limit).is_retried();
        for limit in [
            Limit::Outputs,
            Limit::OutputBytes,
            Limit::OutputBytesEach,
            Limit::OutputDepth,
            Limit::InputBytes,
            Limit::JsonBytes,
        ] {
            assert!(!is_retried(limit), "{limit}");
        }
        assert_eq!(Limit::of_failure(&Limits::default().timed_out()), Some(Limit::TimeoutMs));
        for limit in [Limit::CpuMs, Limit::MemoryBytes, Limit::HttpCallMs] {
            assert!(is_retried(limit), "{limit}");
        }
        assert!(Limits::default().timed_out().is_retried());
    }

    #[test]
    fn limits_are_lowered_and_never_raised() {
        let mut limits = Limits::default().with(Limit::Outputs, 10);
        limits.lower(Level::Namespace, Limit::Outputs, 20);
        assert_eq!((limits.get(Limit::Outputs), limits.set_by(Limit::Outputs)), (10, Level::Host));
        limits.lower(Level::Graph, Limit::Outputs, 5);
        limits.lower(Level::Node, Limit::Outputs, 5);
        assert_eq!((limits.get(Limit::Outputs), limits.set_by(Limit::Outputs)), (5, Level::Graph));
        assert_eq!(limits.forbids(Limit::Outputs, 5), None);
        let cause = limits.forbids(Limit::Outputs, 6).unwrap();
        assert!(
            cause.contains("6 is more than 5 (`outputs`)") && cause.contains("graph"),
            "{cause}"
        );
        let cause = limits.forbids(Limit::StackBytes, 65_536).unwrap();
        assert!(cause.contains("the same for all nodes of a host"), "{cause}");
    }

    #[test]
    fn a_lowered_limit_names_the_graphs_value() {
        let mut limits = Limits::default().with(Limit::CpuMs, 1_000);
        limits.lower(Level::Graph, Limit::CpuMs, 4_000);
        let failure = limits.reached(Limit::CpuMs);
        assert!(failure.message.contains("the limit is 1 s"), "{failure}");
        assert!(failure.message.ends_with("it lowers the 4 s of the graph"), "{failure}");
        limits.lower(Level::Node, Limit::CpuMs, 500);
        let failure = limits.reached(Limit::CpuMs);
        assert!(!failure.message.contains("lowers"), "{failure}");
    }

    #[test]
    fn a_reached_limit_names_value_and_remedy() {
        let mut limits = Limits::default();
        let failure = limits.reached(Limit::MemoryBytes);
        assert_eq!(failure.kind, FailureKind::Limit);
        assert!(failure.message.contains("128 MiB (`memory_bytes`)"), "{failure}");
        assert!(failure.message.contains("--limit memory_bytes=.."), "{failure}");
        assert_eq!(
            failure.details,
            Some(json!({"limit": "memory_bytes", "value": 134_217_728u64}))
        );
        assert_eq!(Limit::of_failure(&failure), Some(Limit::MemoryBytes));
        let from_guest = Failure::new(FailureKind::Permanent, "").with(json!({"limit": "outputs"}));
        assert_eq!(Limit::of_failure(&from_guest), None);
        limits
            .lower_for(&"guests".parse().unwrap(), &[(Limit::StoreBytes, 1)].into_iter().collect());
        let failure = limits.reached(Limit::StoreBytes);
        assert!(failure.message.contains("is 1 byte (`store_bytes`)"), "{failure}");
        assert!(failure.message.contains("=.. --namespace guests`"), "{failure}");
        limits.lower(Level::Node, Limit::TimeoutMs, 1_500);
        let failure = limits.timed_out();
        assert!(
            failure.message.contains("1500 ms")
                && failure.message.contains("`timeout_ms` of the node"),
            "{failure}"
        );
    }
}
