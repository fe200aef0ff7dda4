//! Uploads in the house: how many there may be. Each holds its bytes until it
//! is compiled, so their number bounds the memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use exosphere_orchestrator::domain::ids::Name;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::body::{announced, read, too_large};
use crate::problem::Problem;

/// Uploads at a time, in the whole house and of one namespace: being read,
/// waiting for their turn, and being compiled.
const IN_ALL: usize = 8;
const OF_ONE: usize = 4;

/// When one that was turned away may come again.
const AGAIN_AFTER_S: u64 = 5;

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
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-uploads", words)
        .retry_after(AGAIN_AFTER_S)
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
