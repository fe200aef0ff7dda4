//! The timeline of a run: for each node or host, how many states ran and waited at a time, and how
//! many attempts began, ended and failed, in bins of equal width.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{AttemptTimes, Bins, Sample, StateTimes};
use crate::ids::{Millis, NodeIx, SessionId};
use crate::json::Typed;
use crate::state::Status;

/// The maximum number of bins of a timeline.
pub const MAX_TIMELINE_BINS: u32 = 400;

/// The maximum number of series of a timeline, besides one for all others.
pub const MAX_SERIES: usize = 100;

/// The series of a timeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TimelineBy {
    /// One series for each node.
    #[default]
    Node,
    /// One series for each host.
    Host,
}

/// The interval of a timeline, and its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineRequest {
    /// The begin of the interval.
    pub from: Millis,
    /// The end of the interval.
    pub to: Millis,
    /// The maximum number of bins.
    pub bins: u32,
    /// The series.
    pub by: TimelineBy,
    /// The present time, until which open states run and wait.
    pub now: Millis,
}

/// The states and earlier attempts of a run.
#[derive(Debug, Clone, Default)]
pub struct Times {
    /// The states.
    pub states: Vec<StateTimes>,
    /// Their attempts before the last ones.
    pub attempts: Vec<AttemptTimes>,
    /// The part of the run's states that these are.
    pub sample: Sample,
}

/// A timeline of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timeline {
    /// The id of the run.
    pub run: String,
    /// The kind of the series: of nodes or of hosts.
    pub by: TimelineBy,
    /// The begin of the first bin, in milliseconds since 1970 (UTC).
    pub from: i64,
    /// The end of the last bin, in milliseconds since 1970 (UTC).
    pub to: i64,
    /// The width of a bin, in milliseconds.
    pub bin_ms: u64,
    /// The series: nodes in the order of the graph, or hosts by number. Those without states in the
    /// interval are left out.
    pub series: Vec<TimelineSeries>,
    /// The states from which the timeline was made.
    pub sample: Sample,
    /// The approximations in this answer, in words.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A series of a timeline. Each list has a value for each bin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimelineSeries {
    /// The identifier of the node; null for a host, and for all other nodes together.
    #[serde(default)]
    pub identifier: Option<String>,
    /// The number of the host; null for a node, and for states whose host is not known.
    #[serde(default)]
    pub host: Option<i64>,
    /// The number of nodes or hosts that this series counts together, if it is the one of all
    /// others; else 1.
    pub members: u64,
    /// The number of states that were running at a time, on average over the bin.
    pub running: Vec<f64>,
    /// The number of states that were due and had not begun, on average over the bin.
    pub waiting: Vec<f64>,
    /// The number of attempts that began.
    pub began: Vec<u64>,
    /// The number of attempts that ended.
    pub ended: Vec<u64>,
    /// The number of attempts that failed.
    pub failed: Vec<u64>,
}

impl Typed for Timeline {}

/// The node or host of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Node(NodeIx),
    Host(i64),
    UnknownHost,
}

/// Draws the timeline of a run. `identifier` names a node, and `hosts` has the host number of each
/// session.
pub fn timeline(
    run: String,
    times: &Times,
    request: &TimelineRequest,
    hosts: &HashMap<SessionId, i64>,
    identifier: impl Fn(NodeIx) -> Option<String>,
) -> Timeline {
    let bins = Bins::over(request.from, request.to, request.bins.clamp(1, MAX_TIMELINE_BINS));
    let key = |node, session: Option<SessionId>| match request.by {
        TimelineBy::Node => Key::Node(node),
        TimelineBy::Host => session
            .and_then(|session| hosts.get(&session))
            .map_or(Key::UnknownHost, |host| Key::Host(*host)),
    };
    let mut all: HashMap<Key, BinCounts> = HashMap::new();
    for state in &times.states {
        let counts =
            all.entry(key(state.node, state.session)).or_insert_with(|| BinCounts::new(bins));
        counts.add_state(state, request.now);
    }
    for attempt in &times.attempts {
        let key = key(attempt.node, attempt.session);
        all.entry(key).or_insert_with(|| BinCounts::new(bins)).add_attempt(attempt);
    }
    let series = sorted_series(all).into_iter().map(|(key, members, counts)| TimelineSeries {
        identifier: match key {
            Some(Key::Node(node)) => identifier(node),
            _ => None,
        },
        host: match key {
            Some(Key::Host(host)) => Some(host),
            _ => None,
        },
        members,
        ..counts.series(times.sample)
    });
    Timeline {
        run,
        by: request.by,
        from: bins.from,
        to: bins.end(),
        bin_ms: bins.width,
        series: series.collect(),
        sample: times.sample,
        notes: notes(times),
    }
}

/// Sorts counts by their keys. The smallest of more than [`MAX_SERIES`] become one without a key.
/// Each is returned with the number of keys that it is of.
fn sorted_series(all: HashMap<Key, BinCounts>) -> Vec<(Option<Key>, u64, BinCounts)> {
    let mut all: Vec<(Key, BinCounts)> = all.into_iter().filter(|(_, it)| !it.is_empty()).collect();
    // Ties are broken, so that an answer does not depend on the order of a map.
    all.sort_by_key(|(key, counts)| (std::cmp::Reverse(counts.events), *key));
    let rest = all.split_off(all.len().min(MAX_SERIES));
    all.sort_by_key(|(key, _)| *key);
    let members = rest.len() as u64;
    let others = rest.into_iter().map(|(_, counts)| counts).reduce(BinCounts::joined);
    let mut series: Vec<_> = all.into_iter().map(|(key, it)| (Some(key), 1, it)).collect();
    series.extend(others.map(|counts| (None, members, counts)));
    series
}

/// Returns what is approximate in a timeline.
fn notes(times: &Times) -> Vec<String> {
    let mut notes = Vec::new();
    let Sample { examined, of } = times.sample;
    if times.sample.is_partial() {
        notes.push(format!(
            "the values are estimates from an even sample of {examined} of {of} states"
        ));
    }
    if times.states.iter().any(|state| state.status == Status::Queued) {
        notes.push(
            "a state that has not ended counts as running from its claim on, which may be earlier \
             than its execution"
                .to_owned(),
        );
    }
    if !times.attempts.is_empty() {
        notes.push(
            "a state that was tried several times counts as waiting only before its last attempt"
                .to_owned(),
        );
    }
    let is_lost = |attempt: &AttemptTimes| attempt.began_at.is_none();
    if times.attempts.iter().any(is_lost) {
        notes.push(
            "attempts whose host was lost, or that failed before they began, do not count as \
             running"
                .to_owned(),
        );
    }
    notes
}

/// Times that are spent in bins.
#[derive(Debug, Clone)]
struct Spent {
    /// Milliseconds within bins that are not full.
    partial: Vec<u64>,
    /// The change of the number of full bins: intervals that fill this bin, less those before it.
    full: Vec<i64>,
}

impl Spent {
    fn add(&mut self, bins: &Bins, from: Millis, to: Millis) {
        let (from, to) = (from.max(bins.from), to.min(bins.end()));
        if from >= to {
            return;
        }
        // `to` is not part of the interval.
        let (Some(first), Some(last)) = (bins.at(from), bins.at(to - 1)) else { return };
        if first == last {
            self.partial[first] += super::between(from, to);
            return;
        }
        self.partial[first] += super::between(from, bins.start(first + 1));
        self.partial[last] += super::between(bins.start(last), to);
        self.full[first + 1] += 1;
        self.full[last] -= 1;
    }

    /// Returns the mean number of intervals in each bin.
    fn means(&self, width: u64, factor: f64) -> Vec<f64> {
        let mut full = 0;
        let mean = |(partial, change): (&u64, &i64)| {
            full += change;
            let mean = (full as f64 + *partial as f64 / width as f64) * factor;
            (mean * 1_000.0).round() / 1_000.0
        };
        self.partial.iter().zip(&self.full).map(mean).collect()
    }

    fn add_all(&mut self, other: &Spent) {
        add_all(&mut self.partial, &other.partial);
        add_all(&mut self.full, &other.full);
    }
}

/// Adds numbers to others, one by one.
fn add_all<T: Copy + std::ops::AddAssign>(to: &mut [T], other: &[T]) {
    for (to, other) in to.iter_mut().zip(other) {
        *to += *other;
    }
}

/// The counts of one series.
#[derive(Debug, Clone)]
struct BinCounts {
    bins: Bins,
    running: Spent,
    waiting: Spent,
    began: Vec<u64>,
    ended: Vec<u64>,
    failed: Vec<u64>,
    /// The number of states and attempts in the interval.
    events: u64,
}

impl BinCounts {
    fn new(bins: Bins) -> Self {
        let spent = Spent { partial: vec![0; bins.count], full: vec![0; bins.count] };
        let counts = vec![0; bins.count];
        BinCounts {
            bins,
            running: spent.clone(),
            waiting: spent,
            began: counts.clone(),
            ended: counts.clone(),
            failed: counts,
            events: 0,
        }
    }

    fn add_state(&mut self, state: &StateTimes, now: Millis) {
        if state.status != Status::Waiting {
            let waits_until = state.began_at.or(state.ended_at).unwrap_or(now);
            self.add_interval(state.due_at, waits_until, |it| &mut it.waiting);
        }
        let has_failed = state.status == Status::Errored;
        self.add_execution(state.began_at, state.ended_at, has_failed, now);
    }

    fn add_attempt(&mut self, attempt: &AttemptTimes) {
        let AttemptTimes { began_at, ended_at, has_failed, .. } = *attempt;
        self.add_execution(began_at, Some(ended_at), has_failed, ended_at);
    }

    fn add_execution(
        &mut self,
        began_at: Option<Millis>,
        ended_at: Option<Millis>,
        has_failed: bool,
        now: Millis,
    ) {
        if let Some(began_at) = began_at {
            self.add_interval(began_at, ended_at.unwrap_or(now), |it| &mut it.running);
            self.count(began_at, |it| &mut it.began);
        }
        if let Some(ended_at) = ended_at {
            self.count(ended_at, |it| &mut it.ended);
            if has_failed {
                self.count(ended_at, |it| &mut it.failed);
            }
        }
    }

    fn add_interval(&mut self, from: Millis, to: Millis, spent: impl Fn(&mut Self) -> &mut Spent) {
        let bins = self.bins;
        spent(self).add(&bins, from, to);
        self.events += u64::from(from < bins.end() && to > bins.from && from < to);
    }

    fn count(&mut self, time: Millis, counts: impl Fn(&mut Self) -> &mut Vec<u64>) {
        if let Some(bin) = self.bins.at(time) {
            counts(self)[bin] += 1;
            self.events += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Adds other counts over the same bins.
    fn joined(mut self, other: BinCounts) -> BinCounts {
        self.running.add_all(&other.running);
        self.waiting.add_all(&other.waiting);
        add_all(&mut self.began, &other.began);
        add_all(&mut self.ended, &other.ended);
        add_all(&mut self.failed, &other.failed);
        self.events += other.events;
        self
    }

    fn series(&self, sample: Sample) -> TimelineSeries {
        let scaled = |counts: &[u64]| counts.iter().map(|count| sample.scaled(*count)).collect();
        let (width, factor) = (self.bins.width, sample.factor());
        TimelineSeries {
            identifier: None,
            host: None,
            members: 1,
            running: self.running.means(width, factor),
            waiting: self.waiting.means(width, factor),
            began: scaled(&self.began),
            ended: scaled(&self.ended),
            failed: scaled(&self.failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ended;
    use super::*;
    use crate::ids::StateId;

    const REQUEST: TimelineRequest =
        TimelineRequest { from: 0, to: 100, bins: 10, by: TimelineBy::Node, now: 100 };

    fn draw(times: &Times, request: &TimelineRequest) -> Timeline {
        let hosts = [(SessionId(1), 7), (SessionId(2), 8)].into();
        timeline("r".to_owned(), times, request, &hosts, |node| Some(format!("n{}", node.0)))
    }

    fn times(states: Vec<StateTimes>) -> Times {
        let examined = states.len() as u64;
        Times { states, attempts: Vec::new(), sample: Sample { examined, of: examined } }
    }

    #[test]
    fn intervals_are_shared_out_among_bins() {
        let states = vec![ended(1, 0, 5, 32), ended(2, 10, 10, 15), ended(3, 12, 40, 100)];
        let drawn = draw(&times(states), &REQUEST);
        assert_eq!((drawn.from, drawn.to, drawn.bin_ms, drawn.series.len()), (0, 100, 10, 1));
        let series = &drawn.series[0];
        assert_eq!(series.identifier.as_deref(), Some("n0"));
        assert_eq!(series.running, [0.5, 1.5, 1.0, 0.2, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(series.waiting, [0.5, 0.8, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(series.began, [1, 1, 0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(series.ended, [0, 1, 0, 1, 0, 0, 0, 0, 0, 0], "the interval is half open");
        assert_eq!(drawn.notes, Vec::<String>::new());
    }

    #[test]
    fn busy_time_equals_the_sum_of_run_times() {
        let states: Vec<_> = (0..500)
            .map(|n| ended(n, n * 3, n * 5 + n % 7, n * 5 + n % 7 + (n * n) % 311))
            .collect();
        let total: i64 = (0..500).map(|n| (n * n) % 311).sum();
        let request = TimelineRequest { to: 3_000, bins: 37, now: 3_000, ..REQUEST };
        let drawn = draw(&times(states), &request);
        let busy: f64 = drawn.series[0].running.iter().sum::<f64>() * drawn.bin_ms as f64;
        assert!((busy - total as f64).abs() < 10.0, "{busy} and {total}");
        assert_eq!(drawn.series[0].began.iter().sum::<u64>(), 500);
    }

    #[test]
    fn open_states_run_until_now() {
        let running = StateTimes { ended_at: None, status: Status::Queued, ..ended(1, 0, 20, 0) };
        let due = StateTimes {
            began_at: None,
            ended_at: None,
            status: Status::Created,
            ..ended(2, 70, 0, 0)
        };
        let unite = StateTimes { status: Status::Waiting, ..due };
        let drawn =
            draw(&times(vec![running, due, unite]), &TimelineRequest { now: 90, ..REQUEST });
        let series = &drawn.series[0];
        assert_eq!(series.running, [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
        assert_eq!(series.waiting, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
        assert_eq!(series.ended.iter().sum::<u64>(), 0);
        assert!(drawn.notes[0].contains("from its claim on"), "{:?}", drawn.notes);
    }

    #[test]
    fn attempts_count_at_their_hosts() {
        let mut all = times(vec![ended(1, 50, 50, 60)]);
        let attempt = AttemptTimes {
            node: NodeIx(0),
            session: Some(SessionId(2)),
            began_at: Some(10),
            ended_at: 30,
            has_failed: true,
        };
        let lost = AttemptTimes { began_at: None, session: Some(SessionId(9)), ..attempt };
        all.attempts = vec![attempt, lost];
        let drawn = draw(&all, &TimelineRequest { by: TimelineBy::Host, ..REQUEST });
        let hosts: Vec<_> = drawn.series.iter().map(|series| series.host).collect();
        assert_eq!(hosts, [Some(7), Some(8), None]);
        assert_eq!(drawn.series[1].running[..4], [0.0, 1.0, 1.0, 0.0]);
        for series in &drawn.series[1..] {
            assert_eq!(series.failed[3], 1);
        }
        assert_eq!(drawn.notes.len(), 2);
    }

    #[test]
    fn small_series_become_one() {
        let at = |node: u32| StateTimes { node: NodeIx(node), ..ended(1, 0, 0, 10) };
        let mut states: Vec<_> = (0..=MAX_SERIES as u32 + 1).map(at).collect();
        states.extend((0..MAX_SERIES as u32).map(at));
        let drawn = draw(&times(states), &REQUEST);
        assert_eq!(drawn.series.len(), MAX_SERIES + 1);
        let others = drawn.series.last().unwrap();
        assert_eq!((others.identifier.as_ref(), others.members), (None, 2));
        assert_eq!(others.running[0], 2.0);
    }

    #[test]
    fn a_sample_is_scaled_and_said() {
        let mut all = times(vec![ended(1, 0, 0, 10), ended(2, 0, 0, 10)]);
        all.sample = Sample { examined: 2, of: 10 };
        all.states[1].id = StateId(2);
        let drawn = draw(&all, &REQUEST);
        assert_eq!((drawn.series[0].running[0], drawn.series[0].began[0]), (10.0, 10));
        assert!(drawn.notes[0].contains("2 of 10 states"), "{:?}", drawn.notes);
    }
}
