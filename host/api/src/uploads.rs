//! Concurrent uploads and their limits. Each upload holds its bytes until it is
//! compiled, so the number of uploads bounds the memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use exosphere_orchestrator::domain::ids::Name;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::body::{announced, read, too_large};
use crate::problem::{Kind, Problem};

/// Limits on concurrent uploads, on the whole host and per namespace. An upload counts
/// while it is read, while it waits for its turn, and while it is compiled.
const IN_ALL: usize = 8;
const OF_ONE: usize = 4;

/// Seconds after which a refused upload may be retried (`Retry-After`).
const AGAIN_AFTER_S: u64 = 5;

/// The time for which a refused upload is read and dropped: a client that is still
/// sending reads no response.
const GOODBYE: Duration = Duration::from_secs(2);

/// The number of uploads under way, by namespace.
#[derive(Clone, Default)]
pub(crate) struct Uploads(Arc<Mutex<HashMap<Name, usize>>>);

/// The permit of one upload, released on drop.
pub(crate) struct Place {
    uploads: Uploads,
    namespace: Name,
}

impl Uploads {
    /// Takes an upload permit, if one is free.
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

    /// Receives an upload: its bytes, and its permit, to be held until they are
    /// processed.
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
                Some(place) => read(&mut body, most, || upload_too_large(most))
                    .await
                    .map(|bytes| (place, bytes)),
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

fn upload_too_large(most: u64) -> Problem {
    too_large(most, "; the operator of the host can raise it: `exosphere serve --upload-bytes ..`")
}

fn too_many() -> Problem {
    let words = format!(
        "{IN_ALL} uploads, or {OF_ONE} of this namespace, are being read or compiled at the \
         moment; try again in {AGAIN_AFTER_S} s"
    );
    Problem::new(Kind::TooManyUploads, words).retry_after(AGAIN_AFTER_S)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

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
