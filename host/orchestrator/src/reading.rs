//! Reading JSON texts into values, which take many times the memory of their
//! text: an attempt has a limit for that, and what is large takes turns, so that
//! many at a time do not add up.
//!
//! Not here: how much a text weighs; that is `exosphere_domain::weight`.

use std::fmt;

use exosphere_domain::failure::Failure;
use exosphere_domain::ids::Name;
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::weight;
use exosphere_sandbox::{Turn, Turns};
use serde::de::DeserializeOwned;

use crate::Parts;
use crate::error::internal;

/// Bytes of memory up to which nobody waits for a turn.
const SMALL: u64 = 1024 * 1024;

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
pub struct AnswerPlace(Turn<Name>);

impl fmt::Debug for AnswerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerPlace")
    }
}

/// Turns at what is large.
pub(crate) struct Large {
    /// At reading it. That keeps a processor busy, so there is one for each, and
    /// one namespace has all but one of them.
    values: Turns<Name>,
    most: u32,
    /// At sending it.
    bodies: Turns<Name>,
    /// At being answered with it.
    answers: Turns<Name>,
    /// At reading it from the database.
    reads: Turns<Name>,
}

impl Large {
    pub(crate) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let processors = u32::try_from(processors).unwrap_or(u32::MAX);
        let most = processors.saturating_sub(1).max(1);
        Large {
            values: Turns::new(processors),
            most,
            bodies: Turns::new(BODIES.0),
            answers: Turns::new(ANSWERS.0),
            reads: Turns::new(LARGE_READS.0),
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

    /// Waits for the turn of a namespace to read values.
    pub(crate) async fn turn(&self, namespace: &Name) -> Option<Turn<Name>> {
        self.values.take(namespace.clone(), self.most).await
    }

    /// Waits for the turn of a namespace to send a body.
    pub(crate) async fn body(&self, namespace: &Name) -> Option<Turn<Name>> {
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
    turn: Option<Turn<Name>>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(parts: &'a Parts, namespace: &'a Name, limits: &'a Limits) -> Self {
        Reading { parts, namespace, limits, weight: 0, turn: None }
    }

    /// Bytes of memory that all takes which was read.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// Forgets what was read, since it is gone again.
    pub(crate) fn is_over(&mut self) {
        self.weight = 0;
    }

    /// Waits for the turn to read something large, of which is not yet known how
    /// large.
    pub(crate) async fn is_large(&mut self) {
        if self.turn.is_none() {
            self.turn = self.parts.large.turn(self.namespace).await;
        }
    }

    /// Makes room for texts that are to be read.
    pub(crate) async fn room(&mut self, texts: impl Iterator<Item = &str>) -> Result<(), Failure> {
        let most = self.limits.get(Limit::JsonBytes);
        for text in texts {
            self.weight = self.weight.saturating_add(weight::of_text(text));
            if self.weight > most {
                return Err(self.limits.reached(Limit::JsonBytes));
            }
        }
        if self.weight > SMALL {
            self.is_large().await;
        }
        Ok(())
    }

    /// Reads a text that the host itself has stored.
    pub(crate) async fn value<T: DeserializeOwned>(&mut self, text: &str) -> Result<T, Failure> {
        self.room(std::iter::once(text)).await?;
        stored(text)
    }

    /// Reads several of them.
    pub(crate) async fn values<T: DeserializeOwned>(
        &mut self,
        texts: &[String],
    ) -> Result<Vec<T>, Failure> {
        self.room(texts.iter().map(String::as_str)).await?;
        texts.iter().map(|text| stored(text)).collect()
    }
}

/// Reads a stored text for which there is room.
pub(crate) fn stored<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| internal(&format!("a stored JSON text: {error}")))
}
