//! Admission: the checks that an upload must pass before it is a plugin. It is a
//! component (`format`), and it compiles in a separate process ([`crate::compiler`])
//! that counts its parts first (`inspect`). It fits the contract ([`crate::load`]), and
//! it describes its nodes twice in the same way.
//!
//! Not here: whether the description makes sense, which the caller checks.

pub(crate) mod error;
pub(crate) mod format;
pub(crate) mod inspect;

use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::ids::Digest;
use exosphere_domain::limits::{Limit, Limits};

use crate::guest::context::Context;
use crate::guest::run_store::EmptyStore;
use crate::guest::secrets::Secrets;
use crate::guest::state::InstanceParams;
use crate::invoke::{CallError, Cancel, Describe};
use crate::load::CompiledPlugin;
use crate::plugins::Plugin;
use crate::sandbox::{Purpose, Sandbox};
use error::{AdmissionError, message_of};
use format::check_format;
use inspect::ComponentSummary;

/// An upload that passed admission.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The digest of the upload.
    pub digest: Digest,
    /// The plugin's description of its nodes: unparsed text, as the guest returned it.
    pub description: String,
    /// Compilation time; close to zero if the code was loaded from the cache.
    pub compile: Duration,
    /// The interfaces that the plugin imports.
    pub imports: Vec<String>,
    /// The counted parts of the component.
    pub summary: ComponentSummary,
}

/// The limits of CPU time and wall-clock time of a `describe` call, which needs milliseconds.
/// The wall-clock limit is far longer, since the host may be busy.
const DESCRIBE_CPU_MS: u64 = 2_000;
const DESCRIBE_WALL_MS: u64 = 30_000;

/// Maximum bytes of a description. The schemas of many nodes fit.
const DESCRIPTION_BYTES: u64 = 1024 * 1024;

impl Sandbox {
    /// Inspects an upload of no namespace, and commits it.
    ///
    /// # Errors
    /// See [`AdmissionError`]; nothing of a refused upload is kept.
    pub async fn admit(&self, bytes: &[u8]) -> Result<Admitted, AdmissionError> {
        let candidate = self.inspect_upload("", bytes).await?;
        let admitted = candidate.admitted.clone();
        self.commit_candidate(candidate).await;
        Ok(admitted)
    }

    /// Checks whether an upload can be admitted. Nothing of it is kept until the
    /// candidate is committed. Namespaces take turns.
    ///
    /// # Errors
    /// See [`AdmissionError`].
    pub async fn inspect_upload(
        &self,
        namespace: &str,
        bytes: &[u8],
    ) -> Result<Candidate, AdmissionError> {
        check_format(bytes)?;
        let digest = Digest::from_content(bytes);
        let known = match self.plugins().get(digest) {
            Some(plugin) => Some(plugin),
            None => self.load_cached(digest).await,
        };
        let compiled = match known {
            Some(plugin) => CompiledPlugin { plugin, artifact: None, elapsed: Duration::ZERO },
            None => self.compile(digest, bytes, Purpose::Upload(namespace)).await?,
        };
        let plugin = &compiled.plugin;
        let description = self.describe(plugin).await?;
        // The plugin is asked again in a second sandbox: the stored description has to be the
        // one that every host would get.
        if self.describe(plugin).await? != description {
            return Err(AdmissionError::DescribeDiffers);
        }
        let admitted = Admitted {
            digest,
            description,
            compile: compiled.elapsed,
            imports: plugin.imports().to_vec(),
            summary: plugin.summary().clone(),
        };
        Ok(Candidate { admitted, compiled })
    }

    /// Keeps an inspected upload in memory and in the code cache.
    pub async fn commit_candidate(&self, candidate: Candidate) {
        let CompiledPlugin { plugin, artifact, .. } = candidate.compiled;
        if let Some(artifact) = artifact {
            self.write_cache(plugin.digest(), artifact).await;
        }
        self.plugins().insert(plugin);
    }

    async fn describe(&self, plugin: &Plugin) -> Result<String, AdmissionError> {
        // The description is copied out of the guest as an output is, so it counts as
        // one.
        let limits = self
            .capped(Limits::default())
            .with(Limit::Outputs, 0)
            .with(Limit::OutputBytes, DESCRIPTION_BYTES)
            .with(Limit::CpuMs, DESCRIBE_CPU_MS)
            .with(Limit::TimeoutMs, DESCRIBE_WALL_MS);
        let params = InstanceParams {
            context: Context::default(),
            store: Arc::new(EmptyStore),
            secrets: Secrets::default(),
            grants: Arc::default(),
            network: self.network(),
            limits,
        };
        let no_cancel = Cancel::default();
        let (answer, _) = self.call_guest(plugin, params, Describe, (false, &no_cancel)).await;
        answer.map_err(|error| match error {
            CallError::Typecheck(error) => AdmissionError::Exports { cause: message_of(&error) },
            CallError::Failed(failure) => AdmissionError::Describe(failure),
            CallError::Cancelled => {
                let message = "the host has stopped asking";
                AdmissionError::Describe(Failure::new(FailureKind::Internal, message))
            }
        })
    }
}

/// An upload that passed admission and is not kept yet.
pub struct Candidate {
    /// The result of the admission.
    pub admitted: Admitted,
    compiled: CompiledPlugin,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.admitted.fmt(f)
    }
}
