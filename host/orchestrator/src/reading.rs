//! Reads JSON texts into values, which take many times the memory of their text. Each
//! attempt has a limit for that memory. Large texts take turns, so that many attempts do
//! not add up, and are read on other threads than those that serve requests.
//!
//! Not here: how a text is read and how much its values weigh; that is
//! `exosphere_domain::json`.

use std::time::{Duration, Instant};

use std::fmt;

use exosphere_domain::failure::Failure;
use exosphere_domain::ids::Name;
use exosphere_domain::json::{self, JsonError};
use exosphere_domain::json_size;
use exosphere_domain::limits::{Limit, Limits};
use exosphere_sandbox::{FairPermit, FairSemaphore};
use serde_json::Value;

use crate::Parts;
use crate::error::internal;
use crate::host_work::{Bounds, Meter};

/// Bytes of memory up to which a reader needs no turn.
const SMALL: u64 = 1024 * 1024;

/// Bytes of text up to which its values cannot weigh more than [`SMALL`]: the worst text
/// weighs some 230 times as much.
const SMALL_TEXT: u64 = 4 * 1024;

/// Bytes of text from which a text is read in a turn, on other threads than those that
/// serve requests.
const LARGE_TEXT: u64 = 256 * 1024;

/// Large request bodies that arrive at a time, and those of one namespace among them.
/// They have their own permits, since a body takes as long as its sender likes.
const BODIES: (u32, u32) = (8, 2);

/// Large answers in memory at a time, from their reading until the caller has them, and
/// those of one namespace among them.
const ANSWERS: (u32, u32) = (8, 2);

/// Read connections that read something large at a time, and those for one namespace
/// among them.
const LARGE_READS: (u32, u32) = (2, 1);

/// Bytes from which an answer is large.
pub(crate) const LARGE_ANSWER: i64 = 256 * 1024;

/// The permit of a large answer, dropped once the answer has been sent.
#[expect(dead_code, reason = "it is held, and dropped")]
pub struct AnswerPlace(FairPermit<Name>);

impl fmt::Debug for AnswerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerPlace")
    }
}

/// Permits for large bodies, answers and reads. Turns at reading JSON are those of host
/// work (see [`crate::host_work`]).
pub(crate) struct Large {
    bodies: FairSemaphore<Name>,
    /// Permits for large answers.
    answers: FairSemaphore<Name>,
    /// Permits for large reads of the database.
    reads: FairSemaphore<Name>,
}

impl Large {
    pub(crate) fn new() -> Self {
        Large {
            bodies: FairSemaphore::new(BODIES.0),
            answers: FairSemaphore::new(ANSWERS.0),
            reads: FairSemaphore::new(LARGE_READS.0),
        }
    }

    /// Reads `bytes` for a caller. If they are large, waits for permits of the namespace,
    /// and returns one to hold until the caller has the answer.
    pub(crate) async fn read<T, E>(
        &self,
        namespace: &Name,
        bytes: i64,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<(T, Option<AnswerPlace>), E> {
        if bytes <= LARGE_ANSWER {
            return Ok((read.await?, None));
        }
        let place = self.answers.acquire(namespace.clone(), ANSWERS.1).await.map(AnswerPlace);
        let _turn = self.reads.acquire(namespace.clone(), LARGE_READS.1).await;
        Ok((read.await?, place))
    }

    /// Waits for a permit of the namespace to receive a large body.
    pub(crate) async fn body(&self, namespace: &Name) -> Option<FairPermit<Name>> {
        self.bodies.acquire(namespace.clone(), BODIES.1).await
    }
}

/// Reads the JSON texts of one attempt. A turn that it holds ends with it.
pub(crate) struct Reading<'a> {
    parts: &'a Parts,
    namespace: &'a Name,
    limits: &'a Limits,
    weight: u64,
    turn: Option<FairPermit<Name>>,
    /// The start of the turn, from which the deadline counts.
    begun: Instant,
    patience: Duration,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(parts: &'a Parts, namespace: &'a Name, limits: &'a Limits) -> Self {
        let patience = limits.time(Limit::TimeoutMs);
        Reading { parts, namespace, limits, weight: 0, turn: None, begun: Instant::now(), patience }
    }

    /// Returns the bytes of memory that all values so far take.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// Returns `true` if the reading has a turn, and so is large.
    pub(crate) fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Waits for a turn to read something large of unknown size. The deadline begins with
    /// the turn, since the wait for it is not the attempt's fault.
    pub(crate) async fn acquire_turn(&mut self) {
        if self.turn.is_none() {
            self.turn = self.parts.work.turn(self.namespace).await;
            self.begun = Instant::now();
        }
    }

    /// Takes the turn for host work, or waits for one if there is none.
    pub(crate) fn take_turn(&mut self) -> impl Future<Output = Option<FairPermit<Name>>> + use<'a> {
        let (held, parts, namespace) = (self.turn.take(), self.parts, self.namespace);
        async move {
            match held {
                Some(turn) => Some(turn),
                None => parts.work.turn(namespace).await,
            }
        }
    }

    /// Returns a turn to the reading after host work.
    pub(crate) fn give_turn(&mut self, turn: Option<FairPermit<Name>>) {
        self.turn = turn;
    }

    /// Fails once an attempt has been reading for as long as it may run.
    pub(crate) fn check_deadline(&self) -> Result<(), Failure> {
        match self.turn.is_some() && self.begun.elapsed() > self.patience {
            true => Err(self.limits.timed_out()),
            false => Ok(()),
        }
    }

    /// Waits for a turn if texts are large, or could be once they are read.
    async fn begin(&mut self, texts: impl Iterator<Item = &str> + Clone) -> u64 {
        let bytes: u64 = texts.clone().map(|text| text.len() as u64).sum();
        let is_large = bytes > LARGE_TEXT
            || (bytes > SMALL_TEXT
                && self.weight.saturating_add(texts.map(json_size::estimate_text).sum()) > SMALL);
        if is_large {
            self.acquire_turn().await;
        }
        bytes
    }

    /// Reads a text that the host itself has stored.
    pub(crate) async fn value(&mut self, text: &str) -> Result<Value, Failure> {
        if text.len() as u64 > LARGE_TEXT {
            let read = |_: &(), text: &str, room: &mut u64| json::read_stored_within(text, room);
            let mut values = self.texts(vec![((), text.to_owned())], read).await?;
            return values.pop().map(|((), value)| value).ok_or_else(|| internal(&"no value"));
        }
        self.begin(std::iter::once(text)).await;
        let mut room = self.room();
        let value = json::read_stored_within(text, &mut room);
        self.take_off(room);
        value.map_err(|error| self.refused(&error))
    }

    /// Reads texts with `read`, which subtracts the memory of its value from the bytes
    /// that it is given. Much text is read as host work on another thread.
    pub(crate) async fn texts<K: Send + 'static, T: Send + 'static>(
        &mut self,
        texts: Vec<(K, impl AsRef<str> + Send + 'static)>,
        read: impl Fn(&K, &str, &mut u64) -> Result<T, JsonError> + Send + 'static,
    ) -> Result<Vec<(K, T)>, Failure> {
        let bytes = self.begin(texts.iter().map(|(_, text)| text.as_ref())).await;
        let mut room = self.room();
        let work = move || {
            let mut all = Vec::with_capacity(texts.len());
            for (key, text) in texts {
                match read(&key, text.as_ref(), &mut room) {
                    Ok(value) => all.push((key, value)),
                    Err(error) => return (Err(error), room),
                }
            }
            (Ok(all), room)
        };
        let (read, room) = if bytes > LARGE_TEXT {
            let turn = self.turn.take();
            let bounds = Bounds::cpu(Duration::MAX);
            let done = self.parts.work.run(turn, bounds, move |_: &Meter| work()).await;
            let done = done.map_err(|lost| internal(&lost))?;
            self.turn = done.turn;
            done.value
        } else {
            work()
        };
        self.take_off(room);
        read.map_err(|error| self.refused(&error))
    }

    /// Returns the bytes of memory that are left.
    fn room(&self) -> u64 {
        self.limits.get(Limit::JsonBytes).saturating_sub(self.weight)
    }

    fn take_off(&mut self, room: u64) {
        self.weight = self.limits.get(Limit::JsonBytes).saturating_sub(room);
    }

    fn refused(&self, error: &JsonError) -> Failure {
        match error {
            JsonError::TooHeavy => self.limits.reached(Limit::JsonBytes),
            error => internal(&format!("a stored JSON text: {error}")),
        }
    }
}
