//! Reads JSON texts into values, which take many times the memory of their text. Each
//! attempt has a limit for that memory. Large texts take turns, so that many attempts do
//! not add up, and are read on other threads than those that serve requests.
//!
//! Not here: how a text is read (`exosphere_domain::json`), and how much memory its values take
//! (`exosphere_domain::json_size`).

use std::time::{Duration, Instant};

use exosphere_domain::failure::Failure;
use exosphere_domain::ids::Name;
use exosphere_domain::json::{self, JsonError};
use exosphere_domain::json_size;
use exosphere_domain::limits::{Limit, Limits};
use exosphere_sandbox::FairPermit;
use serde_json::Value;

use crate::error::internal;
use crate::host_work::{Bounds, HostWork, Meter};

/// Maximum bytes of memory that a reader may take without a turn.
const MAX_INLINE_VALUE_BYTES: u64 = 1024 * 1024;

/// Maximum bytes of a text whose values certainly take less than [`MAX_INLINE_VALUE_BYTES`]:
/// the worst text takes some 230 times its size.
const MAX_UNMEASURED_TEXT_BYTES: u64 = 4 * 1024;

/// The size from which a text is large, in bytes. It is read in a turn, on other threads than
/// those that serve requests.
const LARGE_TEXT_BYTES: u64 = 256 * 1024;

/// The memory budget of one attempt for JSON values; it reads the texts of the attempt. A turn
/// that it holds ends with it.
pub(crate) struct JsonBudget<'a> {
    host_work: &'a HostWork,
    namespace: &'a Name,
    limits: &'a Limits,
    bytes: u64,
    turn: Option<FairPermit<Name>>,
    /// The start of the turn, from which the deadline counts.
    started: Instant,
    timeout: Duration,
}

impl<'a> JsonBudget<'a> {
    pub(crate) fn new(host_work: &'a HostWork, namespace: &'a Name, limits: &'a Limits) -> Self {
        let timeout = limits.time(Limit::TimeoutMs);
        JsonBudget {
            host_work,
            namespace,
            limits,
            bytes: 0,
            turn: None,
            started: Instant::now(),
            timeout,
        }
    }

    /// Returns the bytes of memory that all values so far take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns `true` if the budget has a turn, which means that its values are large.
    pub(crate) fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Waits for a turn to read something large of unknown size. The deadline begins with
    /// the turn, since the wait for it is not the attempt's fault.
    pub(crate) async fn acquire_turn(&mut self) {
        if self.turn.is_none() {
            self.turn = self.host_work.turn(self.namespace).await;
            self.started = Instant::now();
        }
    }

    /// Takes the turn for host work, or waits for one if there is none.
    pub(crate) fn take_turn(&mut self) -> impl Future<Output = Option<FairPermit<Name>>> + use<'a> {
        let (held, host_work, namespace) = (self.turn.take(), self.host_work, self.namespace);
        async move {
            match held {
                Some(turn) => Some(turn),
                None => host_work.turn(namespace).await,
            }
        }
    }

    /// Takes a turn back after host work.
    pub(crate) fn return_turn(&mut self, turn: Option<FairPermit<Name>>) {
        self.turn = turn;
    }

    /// Fails once an attempt has been reading for as long as it may run.
    pub(crate) fn check_deadline(&self) -> Result<(), Failure> {
        if self.turn.is_some() && self.started.elapsed() > self.timeout {
            return Err(self.limits.timed_out());
        }
        Ok(())
    }

    /// Waits for a turn if texts are large, or could be once they are read. Returns the
    /// bytes of the texts.
    async fn reserve(&mut self, texts: impl Iterator<Item = &str> + Clone) -> u64 {
        let bytes: u64 = texts.clone().map(|text| text.len() as u64).sum();
        let is_large = bytes > LARGE_TEXT_BYTES
            || (bytes > MAX_UNMEASURED_TEXT_BYTES
                && self.bytes.saturating_add(texts.map(json_size::estimate_text).sum())
                    > MAX_INLINE_VALUE_BYTES);
        if is_large {
            self.acquire_turn().await;
        }
        bytes
    }

    /// Reads a text that the host itself has stored.
    pub(crate) async fn read_value(&mut self, text: &str) -> Result<Value, Failure> {
        if text.len() as u64 > LARGE_TEXT_BYTES {
            let read =
                |_: &(), text: &str, remaining: &mut u64| json::read_stored_within(text, remaining);
            let mut values = self.read_texts(vec![((), text.to_owned())], read).await?;
            return values.pop().map(|((), value)| value).ok_or_else(|| internal(&"no value"));
        }
        self.reserve(std::iter::once(text)).await;
        let mut remaining = self.remaining();
        let value = json::read_stored_within(text, &mut remaining);
        self.set_remaining(remaining);
        value.map_err(|error| self.to_failure(&error))
    }

    /// Reads texts with `read`, which subtracts the memory of its value from the bytes
    /// that it is given. Much text is read as host work on another thread.
    pub(crate) async fn read_texts<K: Send + 'static, T: Send + 'static>(
        &mut self,
        texts: Vec<(K, impl AsRef<str> + Send + 'static)>,
        read: impl Fn(&K, &str, &mut u64) -> Result<T, JsonError> + Send + 'static,
    ) -> Result<Vec<(K, T)>, Failure> {
        let bytes = self.reserve(texts.iter().map(|(_, text)| text.as_ref())).await;
        let mut remaining = self.remaining();
        let work = move || {
            let mut all = Vec::with_capacity(texts.len());
            for (key, text) in texts {
                match read(&key, text.as_ref(), &mut remaining) {
                    Ok(value) => all.push((key, value)),
                    Err(error) => return (Err(error), remaining),
                }
            }
            (Ok(all), remaining)
        };
        let (read, remaining) = if bytes > LARGE_TEXT_BYTES {
            let turn = self.turn.take();
            let bounds = Bounds::cpu(Duration::MAX);
            let done = self.host_work.run(turn, bounds, move |_: &Meter| work()).await;
            let done = done.map_err(|lost| internal(&lost))?;
            self.turn = done.turn;
            done.value
        } else {
            work()
        };
        self.set_remaining(remaining);
        read.map_err(|error| self.to_failure(&error))
    }

    /// Returns the bytes of memory that are left.
    fn remaining(&self) -> u64 {
        self.limits.get(Limit::JsonBytes).saturating_sub(self.bytes)
    }

    fn set_remaining(&mut self, remaining: u64) {
        self.bytes = self.limits.get(Limit::JsonBytes).saturating_sub(remaining);
    }

    fn to_failure(&self, error: &JsonError) -> Failure {
        match error {
            JsonError::TooLargeInMemory => self.limits.reached(Limit::JsonBytes),
            error => internal(&format!("a stored JSON text: {error}")),
        }
    }
}
