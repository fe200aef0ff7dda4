//! The number of concurrent uploads, of all callers and of a namespace. Each upload holds its bytes
//! until it is compiled, so that number bounds the memory.
//!
//! Not here: the received size and the rate of a body (`body`), and the longest upload
//! (`AdmissionLimits` of the sandbox).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use axum::body::Body;
use axum::http::HeaderMap;
use exosphere_orchestrator::domain::ids::Name;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::body::{announced, check_encoding, read, too_large};
use crate::problem::Problem;
use crate::problem_kind::Kind;

/// Limits on concurrent uploads, on the whole host and per namespace. An upload counts
/// while it is read, while it waits for its turn, and while it is compiled.
const MAX_UPLOADS: usize = 8;
const MAX_UPLOADS_PER_NAMESPACE: usize = 4;

/// Seconds after which a refused upload may be retried (`Retry-After`).
const RETRY_AFTER_S: u64 = 5;

/// The longest time for which the body of a refused upload is read and dropped: a client
/// that is still sending reads no response.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The number of uploads under way, by namespace.
#[derive(Clone, Default)]
pub(crate) struct Uploads(Arc<Mutex<HashMap<Name, usize>>>);

/// The permit of one upload, released on drop.
pub(crate) struct UploadPermit {
    uploads: Uploads,
    namespace: Name,
}

impl Uploads {
    /// Acquires an upload permit, if one is free.
    fn try_acquire(&self, namespace: &Name) -> Option<UploadPermit> {
        let mut counts = self.0.lock();
        let (all, own_count) = (counts.values().sum::<usize>(), counts.get(namespace).copied());
        let own_count = own_count.unwrap_or_default();
        if all >= MAX_UPLOADS || own_count >= MAX_UPLOADS_PER_NAMESPACE {
            return None;
        }
        counts.insert(namespace.clone(), own_count + 1);
        Some(UploadPermit { uploads: self.clone(), namespace: namespace.clone() })
    }

    /// Receives an upload: its bytes, and its permit, to be held until they are
    /// processed.
    pub(crate) async fn receive(
        &self,
        namespace: &Name,
        headers: &HeaderMap,
        mut body: Body,
        max_bytes: u64,
    ) -> Result<(UploadPermit, Vec<u8>), Problem> {
        let received = self.read(namespace, headers, &mut body, max_bytes).await;
        if received.is_err() {
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            let _ = timeout(DRAIN_TIMEOUT, rest).await;
        }
        received
    }

    async fn read(
        &self,
        namespace: &Name,
        headers: &HeaderMap,
        body: &mut Body,
        max_bytes: u64,
    ) -> Result<(UploadPermit, Vec<u8>), Problem> {
        check_encoding(headers)?;
        if announced(headers).is_some_and(|length| length > max_bytes) {
            return Err(upload_too_large(max_bytes));
        }
        let permit = self.try_acquire(namespace).ok_or_else(too_many)?;
        let bytes = read(body, max_bytes, || upload_too_large(max_bytes)).await?;
        Ok((permit, bytes))
    }
}

impl Drop for UploadPermit {
    fn drop(&mut self) {
        let mut counts = self.uploads.0.lock();
        if let Some(own) = counts.get_mut(&self.namespace) {
            *own -= 1;
            if *own == 0 {
                counts.remove(&self.namespace);
            }
        }
    }
}

fn upload_too_large(max_bytes: u64) -> Problem {
    too_large(max_bytes, "; the operator can raise it with `exosphere serve --upload-bytes ..`")
}

fn too_many() -> Problem {
    let message = format!(
        "too many uploads: the host reads and compiles {MAX_UPLOADS} at a time, and \
         {MAX_UPLOADS_PER_NAMESPACE} of one namespace; try again in {RETRY_AFTER_S} s"
    );
    Problem::new(Kind::TooManyUploads, message).retry_after(RETRY_AFTER_S)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn uploads_are_capped_per_namespace_too() {
        let uploads = Uploads::default();
        let [a, b, c]: [Name; 3] = ["a", "b", "c"].map(|name| name.parse().unwrap());
        let mut held: Vec<_> =
            (0..MAX_UPLOADS_PER_NAMESPACE).map(|_| uploads.try_acquire(&a).unwrap()).collect();
        assert!(uploads.try_acquire(&a).is_none());
        held.extend((0..MAX_UPLOADS_PER_NAMESPACE).map(|_| uploads.try_acquire(&b).unwrap()));
        assert!(uploads.try_acquire(&c).is_none(), "the host is at its limit");
        held.truncate(MAX_UPLOADS_PER_NAMESPACE);
        assert!(uploads.try_acquire(&a).is_none() && uploads.try_acquire(&c).is_some());
        held.clear();
        assert!(uploads.0.lock().is_empty());
    }
}
