//! The reason why a state or a run waits, or what it does instead: in data for programs, and in one
//! sentence for people.
//!
//! Not here: how a reason is found (the orchestrator, `service/why`).

use serde::{Deserialize, Serialize};

use crate::failure::FailureKind;
use crate::ids::Millis;
use crate::json::Typed;

/// The reason why a state that has not ended waits. `RUNNING` is one, too: the others wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum WaitReason {
    /// A host executes it.
    Running {
        /// The name of the host.
        host: String,
        /// The time of its claim.
        since: Option<Millis>,
        /// The time at which the attempt is ended by its limit `timeout_ms`, about.
        deadline_at: Option<Millis>,
    },
    /// The host that executed it was lost: another one takes it back within 15 seconds.
    HostLost {
        /// The name of the lost host.
        host: String,
        /// The time at which the host's session ended, if that was noticed.
        since: Option<Millis>,
    },
    /// An attempt failed, and the next one comes later.
    Backoff {
        /// The number of retries used, the next one included.
        retry: u32,
        /// The maximum number of retries.
        max_retries: u32,
        /// The time from which it may run.
        until: Millis,
        /// The kind of the failure.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        after: Option<FailureKind>,
    },
    /// The node asked to run again later.
    Requeued {
        /// The time from which it may run.
        until: Millis,
    },
    /// The run was started with a delay.
    Delayed {
        /// The time from which it may run.
        until: Millis,
    },
    /// The run is paused, or its graph or namespace.
    Paused {
        /// The paused thing: `run`, `graph` or `namespace`.
        of: String,
        /// The time of the pause.
        since: Option<Millis>,
        /// The id of the key that paused it.
        by: Option<String>,
        /// The reason that was given.
        because: Option<String>,
    },
    /// The run was cancelled or missed a deadline, and its states are being ended.
    Cancelling {
        /// The number of states that have not ended.
        left: u64,
        /// The number of states of the run.
        of: u64,
    },
    /// The namespace holds as many slots as it may.
    NamespaceShare {
        /// The slots that the namespace holds on this host.
        used: u32,
        /// The slots that it may hold there.
        slots: u32,
        /// The states of the namespace that are ready, at most 10,000 are counted.
        ready: u64,
    },
    /// All slots of the host are taken.
    NoSlot {
        /// The slots of the host.
        slots: u32,
        /// The states of the namespace that are ready, at most 10,000 are counted.
        ready: u64,
    },
    /// No host claims states: this one is stopping, and no other is alive.
    NoHost,
    /// It is ready, and a host claims it within moments.
    Due {
        /// The time since which it is due.
        since: Millis,
    },
    /// It unites branches, some of which have not ended.
    Unite {
        /// The members that have not ended.
        open: u64,
        /// The members that failed.
        failed: u64,
        /// The outputs that have arrived.
        arrived: u64,
        /// The oldest of the open members, at most three.
        oldest: Vec<WaitingMember>,
    },
}

/// An open member of a unite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WaitingMember {
    /// The path of the state in its run.
    pub path: String,
    /// The reason why it has not ended.
    #[serde(flatten)]
    #[cfg_attr(feature = "openapi", schema(no_recursion))]
    pub why: WaitReason,
}

/// The reason of a state, with its sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StateWhy {
    /// The path of the state in its run.
    pub path: String,
    /// The status of the state.
    pub status: String,
    /// The reason; null if the state has ended.
    pub why: Option<WaitReason>,
    /// The reason in words.
    pub sentence: String,
}

/// The number of a run's open states with each reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunWhy {
    /// The id of the run.
    pub run: String,
    /// The status of the run.
    pub status: String,
    /// The reasons, the most frequent first.
    pub reasons: Vec<ReasonCount>,
    /// The number of states that wait for a time and were not looked at one by one.
    pub unexamined: u64,
    /// The reason in words.
    pub sentence: String,
}

/// The number of a run's open states with one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReasonCount {
    /// The number of states.
    pub states: u64,
    /// The path of one of them, if one was read.
    pub example: Option<String>,
    /// The reason, with the data of the example.
    #[serde(flatten)]
    pub why: WaitReason,
}

impl Typed for StateWhy {}
impl Typed for RunWhy {}

impl WaitReason {
    /// Returns the name of the reason: `reason` in its data.
    pub fn kind(&self) -> &'static str {
        match self {
            WaitReason::Running { .. } => "running",
            WaitReason::HostLost { .. } => "host-lost",
            WaitReason::Backoff { .. } => "backoff",
            WaitReason::Requeued { .. } => "requeued",
            WaitReason::Delayed { .. } => "delayed",
            WaitReason::Paused { .. } => "paused",
            WaitReason::Cancelling { .. } => "cancelling",
            WaitReason::NamespaceShare { .. } => "namespace-share",
            WaitReason::NoSlot { .. } => "no-slot",
            WaitReason::NoHost => "no-host",
            WaitReason::Due { .. } => "due",
            WaitReason::Unite { .. } => "unite",
        }
    }

    /// Returns the reason as the rest of a sentence whose subject is a state.
    pub fn sentence(&self, now: Millis) -> String {
        let in_time = |until| in_time(until, now);
        match self {
            WaitReason::Running { host, since, deadline_at } => {
                let deadline = deadline_at
                    .map_or(String::new(), |at| format!("; its deadline is {}", in_time(at)));
                let is_running = if since.is_some() { "has been" } else { "is" };
                let since = for_time(*since, now);
                format!("{is_running} running on {host}{since}{deadline}")
            }
            WaitReason::HostLost { host, .. } => {
                format!(
                    "was running on {host}, which is lost; another host takes it back within 15 s"
                )
            }
            WaitReason::Backoff { retry, max_retries, until, after } => {
                let after = after.map_or("its host was lost".to_owned(), |kind| {
                    format!("a failure of the kind {}", kind.as_str())
                });
                format!(
                    "tries again {} (retry {retry} of {max_retries}) after {after}",
                    in_time(*until)
                )
            }
            WaitReason::Requeued { until } => {
                format!("runs again {}, as its node asked", in_time(*until))
            }
            WaitReason::Delayed { until } => {
                format!("begins {}: its run was started with a delay", in_time(*until))
            }
            WaitReason::Paused { of, since, by, because } => {
                format!("waits, because its {}", paused(of, *since, by, because, now))
            }
            WaitReason::Cancelling { left, of } => {
                format!("is being ended with its run: {left} of {of} states are left")
            }
            WaitReason::NamespaceShare { used, slots, ready } => format!(
                "is ready, and waits for a slot of its namespace, which has {used} of {slots} here; \
                 {} ready there",
                states_are(*ready)
            ),
            WaitReason::NoSlot { slots, ready } => format!(
                "is ready, and waits for a slot: the host's {slots} are taken; {} ready in its \
                 namespace",
                states_are(*ready)
            ),
            WaitReason::NoHost => {
                "is ready, and no host claims states: this one is stopping, and no other is alive"
                    .to_owned()
            }
            WaitReason::Due { .. } => "is ready, and a host claims it within moments".to_owned(),
            WaitReason::Unite { open, failed, oldest, .. } => {
                let failed = if *failed > 0 { format!(", {failed} failed") } else { String::new() };
                let members = if *open == 1 { "member has" } else { "members have" };
                let oldest = oldest.first().map_or(String::new(), |member| {
                    format!("; the oldest, {}, {}", member.path, member.why.sentence(now))
                });
                format!("waits for its branches: {open} {members} not ended{failed}{oldest}")
            }
        }
    }

    /// Returns what several states with this reason do, as the rest of a sentence. The data is that
    /// of the first one.
    pub fn of_several(&self, now: Millis) -> String {
        let in_time = |until| in_time(until, now);
        let several = match self {
            WaitReason::Backoff { until, .. } => {
                return format!("waiting to try again, the first {}", in_time(*until));
            }
            WaitReason::Requeued { until } => {
                return format!(
                    "requeued by their nodes; the first runs again {}",
                    in_time(*until)
                );
            }
            WaitReason::Delayed { until } => {
                return format!("delayed from the start; the first begins {}", in_time(*until));
            }
            WaitReason::Paused { of, since, by, because } => {
                return format!("paused: the {}", paused(of, *since, by, because, now));
            }
            WaitReason::Running { .. } => "running",
            WaitReason::HostLost { .. } => "taken back from a lost host",
            WaitReason::Cancelling { .. } => "being ended with the run",
            WaitReason::NamespaceShare { .. } => "waiting for a slot of the namespace",
            WaitReason::NoSlot { .. } => "waiting for a slot",
            WaitReason::NoHost => "waiting for a host",
            WaitReason::Due { .. } => "about to be claimed",
            WaitReason::Unite { .. } => "uniting branches that have not all ended",
        };
        several.to_owned()
    }
}

fn in_time(until: Millis, now: Millis) -> String {
    match until.saturating_sub(now) {
        left if left <= 0 => "now".to_owned(),
        left => format!("in {}", duration(left)),
    }
}

fn for_time(since: Option<Millis>, now: Millis) -> String {
    since.map_or(String::new(), |since| format!(" for {}", duration(now.saturating_sub(since))))
}

/// Says since when, by whose key and why a run, its graph or its namespace has been paused.
fn paused(
    of: &str,
    since: Option<Millis>,
    by: &Option<String>,
    because: &Option<String>,
    now: Millis,
) -> String {
    let since = for_time(since, now);
    let by = by.as_ref().map_or(String::new(), |by| format!(" by the key {by}"));
    let because = because.as_ref().filter(|because| !because.is_empty());
    let because = because.map_or(String::new(), |because| format!(": {because}"));
    format!("{of} has been paused{since}{by}{because}")
}

fn states_are(ready: u64) -> String {
    if ready == 1 { "1 state is".to_owned() } else { format!("{ready} states are") }
}

/// Formats a duration in its largest unit, and the next one below a minute.
fn duration(ms: Millis) -> String {
    let ms = ms.max(0);
    match ms / 1000 {
        0 => format!("{ms} ms"),
        seconds @ 1..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reason_is_data_and_words() {
        let kind = FailureKind::parse("timeout");
        let backoff = WaitReason::Backoff { retry: 3, max_retries: 5, until: 91_000, after: kind };
        let member = WaitingMember { path: "split.count[3]".into(), why: backoff.clone() };
        let unite = WaitReason::Unite { open: 1, failed: 2, arrived: 7, oldest: vec![member] };
        for (reason, data, words) in [
            (
                backoff,
                json!({"reason": "backoff", "retry": 3, "max_retries": 5, "until": 91_000,
                       "after": "timeout"}),
                "tries again in 1 min (retry 3 of 5) after a failure of the kind timeout",
            ),
            (WaitReason::NoHost, json!({"reason": "no-host"}), "no other is alive"),
            (
                unite,
                json!({"reason": "unite", "open": 1, "failed": 2, "arrived": 7, "oldest": [
                    {"path": "split.count[3]", "reason": "backoff", "retry": 3, "max_retries": 5,
                     "until": 91_000, "after": "timeout"}]}),
                "1 member has not ended, 2 failed; the oldest, split.count[3], tries again in 1 min",
            ),
        ] {
            assert_eq!(serde_json::to_value(&reason).unwrap(), data);
            assert_eq!(data["reason"], reason.kind());
            let sentence = reason.sentence(1_000);
            assert!(sentence.contains(words), "{sentence}");
        }
    }

    #[test]
    fn several_states_share_their_words() {
        let paused = |since| WaitReason::Paused {
            of: "graph".into(),
            since,
            by: Some("ops".into()),
            because: Some("the index is rebuilt".into()),
        };
        for (reason, words) in [
            (
                WaitReason::Requeued { until: 6_000 },
                "requeued by their nodes; the first runs again in 5 s",
            ),
            (WaitReason::Delayed { until: 900 }, "delayed from the start; the first begins now"),
            (
                paused(Some(0)),
                "paused: the graph has been paused for 1 s by the key ops: the index is rebuilt",
            ),
            (WaitReason::NoHost, "waiting for a host"),
        ] {
            assert_eq!(reason.of_several(1_000), words);
        }
        let lost = WaitReason::Backoff { retry: 1, max_retries: 2, until: 0, after: None };
        assert_eq!(lost.of_several(0), "waiting to try again, the first now");
        assert!(lost.sentence(0).ends_with("after its host was lost"), "{}", lost.sentence(0));
    }

    #[test]
    fn durations_have_one_unit() {
        for (ms, text) in [
            (-5, "0 ms"),
            (999, "999 ms"),
            (59_999, "59 s"),
            (7_200_000, "2 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }
}
