//! Uploads in the house: how many there may be, and how long one may take to
//! come in. Each holds its bytes until it is compiled, so their number bounds
//! the memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use exosphere_orchestrator::domain::ids::Name;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::body::{announced, broken, too_large};
use crate::problem::Problem;

/// Uploads at a time, in the whole house and of one namespace: being read,
/// waiting for their turn, and being compiled.
const IN_ALL: usize = 8;
const OF_ONE: usize = 4;

/// When one that was turned away may come again.
const AGAIN_AFTER_S: u64 = 5;

/// How long an upload may take to come in, and how long nothing of it may come.
const IN_TIME: Duration = Duration::from_secs(60);
const NO_PROGRESS: Duration = Duration::from_secs(10);

/// Bytes that have to come in for each second, once an upload had time to begin:
/// a drip would hold a place for next to nothing.
const LEAST_RATE: u64 = 16 * 1024;

/// For so long an upload that is refused is read on and dropped: who is still
/// sending reads no answer.
const GOODBYE: Duration = Duration::from_secs(2);

/// The uploads that are in the house.
#[derive(Clone, Default)]
pub(crate) struct Uploads(Arc<Mutex<HashMap<Name, usize>>>);

/// The place of one upload, free again when this goes.
pub(crate) struct Place {
    uploads: Uploads,
    namespace: Name,
}

impl Uploads {
    /// A place for an upload, if there is one.
    fn place(&self, namespace: &Name) -> Option<Place> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (places.values().sum::<usize>(), places.get(namespace).copied());
        let own = own.unwrap_or_default();
        if all >= IN_ALL || own >= OF_ONE {
            return None;
        }
        places.insert(namespace.clone(), own + 1);
        Some(Place { uploads: self.clone(), namespace: namespace.clone() })
    }

    /// Takes an upload in: its bytes, and the place that it has until they are
    /// dealt with.
    pub(crate) async fn take(
        &self,
        namespace: &Name,
        headers: &HeaderMap,
        mut body: Body,
        most: u64,
    ) -> Result<(Place, Vec<u8>), Problem> {
        let taken = match announced(headers).is_some_and(|length| length > most) {
            true => Err(upload_too_large(most)),
            false => match self.place(namespace) {
                Some(place) => read(&mut body, most).await.map(|bytes| (place, bytes)),
                None => Err(too_many()),
            },
        };
        if taken.is_err() {
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            let _ = timeout(GOODBYE, rest).await;
        }
        taken
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = places.get_mut(&self.namespace) {
            *own -= 1;
            if *own == 0 {
                places.remove(&self.namespace);
            }
        }
    }
}

async fn read(body: &mut Body, most: u64) -> Result<Vec<u8>, Problem> {
    let (begun, mut bytes) = (Instant::now(), Vec::new());
    loop {
        let wait = longest_wait(begun, Instant::now(), bytes.len());
        let frame = timeout_at(wait, body.frame()).await.map_err(|_| too_slow())?;
        let Some(frame) = frame else { return Ok(bytes) };
        let data: Bytes = frame.map_err(|_| broken())?.into_data().unwrap_or_default();
        if (bytes.len() as u64).saturating_add(data.len() as u64) > most {
            return Err(upload_too_large(most));
        }
        bytes.extend_from_slice(&data);
    }
}

/// Until when the next piece of an upload has to come, of which so many bytes
/// have come.
fn longest_wait(begun: Instant, now: Instant, bytes: usize) -> Instant {
    let paid_for = Duration::from_secs(bytes as u64 / LEAST_RATE);
    let at_this_rate = begun + NO_PROGRESS.saturating_add(paid_for).min(IN_TIME);
    at_this_rate.min(now + NO_PROGRESS)
}

fn upload_too_large(most: u64) -> Problem {
    too_large(most, "; the operator of the host can raise it: `exosphere serve --upload-bytes ..`")
}

fn too_many() -> Problem {
    let words = format!(
        "{IN_ALL} uploads, or {OF_ONE} of this namespace, are being read or compiled at the \
         moment; try again in {AGAIN_AFTER_S} s"
    );
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-uploads", words)
        .retry_after(AGAIN_AFTER_S)
}

fn too_slow() -> Problem {
    let words = format!(
        "the upload comes too slowly: it may take {} s in all, {} s without progress, and no \
         less than {LEAST_RATE} bytes a second after that",
        IN_TIME.as_secs(),
        NO_PROGRESS.as_secs()
    );
    Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_drip_is_given_no_more_time_than_nothing() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let rate = LEAST_RATE as usize;
        for (now, bytes, until) in
            [(0, 0, 10), (9, 9, 10), (9, 5 * rate, 15), (9, 1000 * rate, 19), (55, 1000 * rate, 60)]
        {
            assert_eq!(longest_wait(begun, at(now), bytes), at(until), "{bytes} after {now} s");
        }
    }

    #[test]
    fn places_are_counted_in_all_and_for_each_namespace() {
        let uploads = Uploads::default();
        let [a, b, c]: [Name; 3] = ["a", "b", "c"].map(|name| name.parse().unwrap());
        let mut held: Vec<_> = (0..OF_ONE).map(|_| uploads.place(&a).unwrap()).collect();
        assert!(uploads.place(&a).is_none());
        held.extend((0..OF_ONE).map(|_| uploads.place(&b).unwrap()));
        assert!(uploads.place(&c).is_none(), "the house is full");
        held.truncate(OF_ONE);
        assert!(uploads.place(&a).is_none() && uploads.place(&c).is_some());
        held.clear();
        assert!(uploads.0.lock().unwrap().is_empty());
    }
}
