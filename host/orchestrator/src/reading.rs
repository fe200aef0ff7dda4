//! Reading JSON texts into values, which take many times the memory of their
//! text: an attempt has a limit for that, and what is large takes turns, so that
//! many at a time do not add up, and is read beside the threads that serve
//! requests.
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

/// Bytes of memory up to which nobody waits for a turn.
const SMALL: u64 = 1024 * 1024;

/// Bytes of text up to which they cannot weigh more than [`SMALL`]: the worst
/// text weighs some 230 times as much.
const SMALL_TEXT: u64 = 4 * 1024;

/// Bytes of text from which on they are read in a turn, beside the threads that
/// serve requests.
const LARGE_TEXT: u64 = 256 * 1024;

/// Large bodies that come in at a time, and how many of them of one namespace.
/// Apart from the turns at reading: a body takes as long as its sender likes.
const BODIES: (u32, u32) = (8, 2);

/// Large answers that are held at a time, from their reading until the caller has
/// them, and how many of them of one namespace.
const ANSWERS: (u32, u32) = (8, 2);

/// Connections, of those that people read by, that read something large at a time,
/// and how many of them for one namespace.
const LARGE_READS: (u32, u32) = (2, 1);

/// Bytes from which on an answer is large.
pub(crate) const LARGE_ANSWER: i64 = 256 * 1024;

/// The place of a large answer: whoever has sent it drops this.
#[expect(dead_code, reason = "it is held, and dropped")]
pub struct AnswerPlace(FairPermit<Name>);

impl fmt::Debug for AnswerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerPlace")
    }
}

/// Turns at sending what is large. Those at reading it are the turns of the host's own
/// work (see [`crate::host_work`]).
pub(crate) struct Large {
    bodies: FairSemaphore<Name>,
    /// At being answered with it.
    answers: FairSemaphore<Name>,
    /// At reading it from the database.
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

    /// Reads something of so many bytes for a caller. If it is large, that waits
    /// for the turn of the namespace, and there is a place to give up when the
    /// caller has it.
    pub(crate) async fn read<T, E>(
        &self,
        namespace: &Name,
        bytes: i64,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<(T, Option<AnswerPlace>), E> {
        if bytes <= LARGE_ANSWER {
            return Ok((read.await?, None));
        }
        let place = self.answers.take(namespace.clone(), ANSWERS.1).await.map(AnswerPlace);
        let _turn = self.reads.take(namespace.clone(), LARGE_READS.1).await;
        Ok((read.await?, place))
    }

    /// Waits for the turn of a namespace to send a body.
    pub(crate) async fn body(&self, namespace: &Name) -> Option<FairPermit<Name>> {
        self.bodies.take(namespace.clone(), BODIES.1).await
    }
}

/// Reads what one attempt needs at a time. Its turn, if it has one, ends with
/// it.
pub(crate) struct Reading<'a> {
    parts: &'a Parts,
    namespace: &'a Name,
    limits: &'a Limits,
    weight: u64,
    turn: Option<FairPermit<Name>>,
    /// The time that has gone into it since the turn began.
    begun: Instant,
    patience: Duration,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(parts: &'a Parts, namespace: &'a Name, limits: &'a Limits) -> Self {
        let patience = limits.time(Limit::TimeoutMs);
        Reading { parts, namespace, limits, weight: 0, turn: None, begun: Instant::now(), patience }
    }

    /// Bytes of memory that all takes which was read.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// Whether it has a turn: then there is much to do.
    pub(crate) fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Waits for the turn to read something large, of which is not yet known how
    /// large. The deadline begins with the turn: waiting for it is not the
    /// attempt's fault.
    pub(crate) async fn acquire_turn(&mut self) {
        if self.turn.is_none() {
            self.turn = self.parts.work.turn(self.namespace).await;
            self.begun = Instant::now();
        }
    }

    /// Lends its turn to the host's own work, or waits for one if it has none.
    pub(crate) fn take_turn(&mut self) -> impl Future<Output = Option<FairPermit<Name>>> + use<'a> {
        let (held, parts, namespace) = (self.turn.take(), self.parts, self.namespace);
        async move {
            match held {
                Some(turn) => Some(turn),
                None => parts.work.turn(namespace).await,
            }
        }
    }

    /// Takes a turn back.
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
                && self.weight.saturating_add(texts.map(json_size::of_text).sum()) > SMALL);
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

    /// Reads texts by a function, which takes what it keeps off the bytes of
    /// memory that it is given. If there is much to read, that happens on a thread
    /// of its own.
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

    /// Bytes of memory that are left.
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
