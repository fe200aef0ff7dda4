//! Reading JSON texts into values, which take many times the memory of their
//! text: an attempt has a limit for that, and what is large takes turns, so that
//! many at a time do not add up.
//!
//! Not here: how much a text weighs; that is `exosphere_domain::weight`.

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

/// Turns at sending what is large. Those at reading it are the turns of the host's own
/// work (see [`crate::host_work`]).
pub(crate) struct Large {
    bodies: Turns<Name>,
}

impl Large {
    pub(crate) fn new() -> Self {
        Large { bodies: Turns::new(BODIES.0) }
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

    /// Waits for the turn to read something large, of which is not yet known how
    /// large.
    pub(crate) async fn is_large(&mut self) {
        if self.turn.is_none() {
            self.turn = self.parts.work.turn(self.namespace).await;
        }
    }

    /// Lends its turn to the host's own work, or waits for one if it has none.
    pub(crate) fn take_turn(&mut self) -> impl Future<Output = Option<Turn<Name>>> + use<'a> {
        let (held, parts, namespace) = (self.turn.take(), self.parts, self.namespace);
        async move {
            match held {
                Some(turn) => Some(turn),
                None => parts.work.turn(namespace).await,
            }
        }
    }

    /// Takes a turn back.
    pub(crate) fn give_turn(&mut self, turn: Option<Turn<Name>>) {
        self.turn = turn;
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
