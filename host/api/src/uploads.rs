//! The number of concurrent uploads, of all callers and of a namespace. Each upload holds its bytes
//! until it is compiled, so that number bounds the memory.
//!
//! Not here: the received size and the rate of a body (`body`), and the longest upload
//! (`AdmissionLimits` of the sandbox).

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use exosphere_orchestrator::domain::ids::Name;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::body::{announced, check_encoding, read, too_large};
use crate::permits::{Permit, Permits};
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

/// The uploads under way.
#[derive(Clone)]
pub(crate) struct Uploads(Permits);

impl Default for Uploads {
    fn default() -> Self {
        Uploads(Permits::new(MAX_UPLOADS, MAX_UPLOADS_PER_NAMESPACE))
    }
}

impl Uploads {
    /// Receives an upload: its bytes, and its permit, to be held until they are
    /// processed.
    pub(crate) async fn receive(
        &self,
        namespace: &Name,
        headers: &HeaderMap,
        mut body: Body,
        max_bytes: u64,
    ) -> Result<(Permit, Vec<u8>), Problem> {
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
    ) -> Result<(Permit, Vec<u8>), Problem> {
        check_encoding(headers)?;
        if announced(headers).is_some_and(|length| length > max_bytes) {
            return Err(upload_too_large(max_bytes));
        }
        let permit = self.0.try_acquire(namespace).ok_or_else(too_many)?;
        let bytes = read(body, max_bytes, || upload_too_large(max_bytes)).await?;
        Ok((permit, bytes))
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
