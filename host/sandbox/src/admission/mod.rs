//! Admission: the checks that an upload must pass before it is a plugin. It is a
//! component, and it compiles in a separate process (`compiler`) that counts its parts
//! first (`inspect`). It fits the contract, and it describes its nodes twice in the
//! same way.
//!
//! Not here: whether the description makes sense, which the caller checks.

pub(crate) mod error;
pub(crate) mod inspect;

use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::failure::{Failure, FailureKind};
use exosphere_domain::ids::Digest;
use exosphere_domain::limits::{Limit, Limits};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Precompiled};

use crate::admission::error::{Refused, words};
use crate::admission::inspect::{Facts, too_many};
use crate::artifact::Artifact;
use crate::bindings::v0_1::PluginIndices;
use crate::engine::{MAX_MEMORIES, MAX_TABLES};
use crate::guest::context::Context;
use crate::guest::secrets::Secrets;
use crate::guest::state::{Host, Session};
use crate::guest::store::Empty;
use crate::invoke::{Cancel, Describe, Unanswered};
use crate::plugins::Plugin;
use crate::sandbox::{Purpose, Sandbox};

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
    pub facts: Facts,
}

/// The CPU time and the wall time of a `describe` call, which needs milliseconds. The
/// wall time is far longer, since the host may be busy.
const DESCRIBE_CPU_MS: u64 = 2_000;
const DESCRIBE_WALL_MS: u64 = 30_000;

/// Bytes of a description. Schemas of many nodes fit well.
const DESCRIPTION_BYTES: u64 = 1024 * 1024;

impl Sandbox {
    /// Admits an upload, or returns the reason for its refusal. An admitted plugin is
    /// loaded, and its code is in the code cache.
    ///
    /// # Errors
    /// See [`Refused`]; nothing of a refused upload is kept.
    pub async fn admit(&self, bytes: &[u8]) -> Result<Admitted, Refused> {
        let candidate = self.check("", bytes).await?;
        let admitted = candidate.admitted.clone();
        self.adopt(candidate).await;
        Ok(admitted)
    }

    /// Keeps a checked upload in memory and in the code cache.
    pub async fn adopt(&self, candidate: Candidate) {
        let Compiled { plugin, artifact, .. } = candidate.compiled;
        if let Some(artifact) = artifact {
            self.keep(plugin.digest(), artifact).await;
        }
        self.plugins().put(plugin);
    }

    /// Checks whether an upload would be admitted. Nothing of it is kept unless the
    /// candidate is adopted. Namespaces take turns.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn check(&self, namespace: &str, bytes: &[u8]) -> Result<Candidate, Refused> {
        recognize(bytes)?;
        let digest = Digest::of(bytes);
        let known = match self.plugins().get(digest) {
            Some(plugin) => Some(plugin),
            None => self.restore(digest).await,
        };
        let compiled = match known {
            Some(plugin) => Compiled { plugin, artifact: None, took: Duration::ZERO },
            None => self.compile(digest, bytes, Purpose::Upload(namespace)).await?,
        };
        let plugin = &compiled.plugin;
        let description = self.describe(plugin).await?;
        // Asked again in a second sandbox: the stored description has to be the one
        // that every host would get.
        if self.describe(plugin).await? != description {
            return Err(Refused::DescribeDiffers);
        }
        let admitted = Admitted {
            digest,
            description,
            compile: compiled.took,
            imports: plugin.imports().to_vec(),
            facts: plugin.facts().clone(),
        };
        Ok(Candidate { admitted, compiled })
    }

    async fn describe(&self, plugin: &Plugin) -> Result<String, Refused> {
        // The description is copied out of the guest as an output is, so it counts as
        // one.
        let limits = self
            .bounded(Limits::default())
            .with(Limit::Outputs, 0)
            .with(Limit::OutputBytes, DESCRIPTION_BYTES)
            .with(Limit::CpuMs, DESCRIBE_CPU_MS)
            .with(Limit::TimeoutMs, DESCRIBE_WALL_MS);
        let session = Session {
            context: Context::default(),
            store: Arc::new(Empty),
            secrets: Secrets::default(),
            grants: Arc::default(),
            network: self.network(),
            limits,
        };
        let (answer, _) = self.ask(plugin, session, Describe, (false, &Cancel::default())).await;
        answer.map_err(|unanswered| match unanswered {
            Unanswered::Misfit(error) => Refused::Exports { why: words(&error) },
            Unanswered::Failed(failure) => Refused::Describe(failure),
            Unanswered::Cancelled => {
                let words = "the host has stopped asking";
                Refused::Describe(Failure::new(FailureKind::Internal, words))
            }
        })
    }

    /// Compiles a component in a separate process, and links it.
    pub(crate) async fn compile(
        &self,
        digest: Digest,
        bytes: &[u8],
        purpose: Purpose<'_>,
    ) -> Result<Compiled, Refused> {
        recognize(bytes)?;
        let (artifact, started) = self.compile_in_turn(purpose, bytes).await?;
        let (engine, linker) = (self.engine().clone(), self.linker());
        let linked = tokio::task::spawn_blocking(move || {
            let loaded = artifact.load(&engine);
            // This program made the code for this engine. Only its size can be wrong,
            // which the engine's pool checks no earlier than here.
            let (facts, component) = loaded.map_err(|error| {
                tracing::info!(%digest, error = format!("{error:#}"), "fresh code does not load");
                Refused::DoesNotFit { why: words(&error) }
            })?;
            let plugin = Arc::new(link(&linker, digest, &component, facts)?);
            Ok(Compiled { plugin, artifact: Some(artifact), took: started.elapsed() })
        });
        linked.await.unwrap_or_else(|error| {
            tracing::error!(%digest, %error, "a compiled component could not be linked");
            Err(Refused::Internal { why: "the component could not be linked".into() })
        })
    }

    /// Writes the code of a plugin to the cache on disk, unless it is there.
    pub(crate) async fn keep(&self, digest: Digest, artifact: Artifact) {
        let cache = self.cache();
        // The task fails only by a panic, which is logged; the cache is optional.
        let _ = tokio::task::spawn_blocking(move || cache.put(digest, &artifact)).await;
    }

    /// Loads a plugin from the cache on disk, if it is there.
    pub(crate) async fn restore(&self, digest: Digest) -> Option<Arc<Plugin>> {
        let (engine, linker, cache) = (self.engine().clone(), self.linker(), self.cache());
        let restored = tokio::task::spawn_blocking(move || {
            let (facts, component) = cache.get(&engine, digest)?;
            let linked = link(&linker, digest, &component, facts);
            linked
                .inspect_err(
                    |error| tracing::warn!(%digest, %error, "a cached plugin is no plugin"),
                )
                .ok()
        });
        restored.await.ok().flatten().map(Arc::new)
    }
}

/// An upload that passed admission and is not kept yet.
pub struct Candidate {
    /// The result of the admission.
    pub admitted: Admitted,
    compiled: Compiled,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.admitted.fmt(f)
    }
}

/// A plugin that is ready to run, with its code if it was compiled just now.
pub(crate) struct Compiled {
    pub(crate) plugin: Arc<Plugin>,
    /// The compiled code; `None` if the plugin came from the cache.
    pub(crate) artifact: Option<Artifact>,
    took: Duration,
}

/// Checks a component against the contract and links it.
fn link(
    linker: &Linker<Host>,
    digest: Digest,
    component: &Component,
    facts: Facts,
) -> Result<Plugin, Refused> {
    // Counted as instantiated: a module's parts count each time that it is
    // instantiated.
    if let Some(parts) = component.resources_required() {
        let check = |what, has, limit| match has > limit {
            true => Err(too_many(what, what, u64::from(has), u64::from(limit))),
            false => Ok(()),
        };
        check("memories", parts.num_memories, MAX_MEMORIES)?;
        check("tables", parts.num_tables, MAX_TABLES)?;
    }
    let pre = linker.instantiate_pre(component);
    let pre = pre.map_err(|error| Refused::Imports { why: words(&error) })?;
    let indices = PluginIndices::new(&pre);
    let indices = indices.map_err(|error| Refused::Exports { why: words(&error) })?;
    Ok(Plugin::new(digest, pre, indices, facts))
}

/// Recognizes a component by the first bytes of the upload.
fn recognize(bytes: &[u8]) -> Result<(), Refused> {
    const WASM: &[u8] = b"\0asm";
    let found = match bytes {
        [] => return Err(Refused::Empty),
        [b'\0', b'a', b's', b'm', version @ ..] => match version {
            [0x0d, 0, 1, 0, ..] => return Ok(()),
            [1, 0, 0, 0, ..] => "a core module",
            [_, _, _, _, ..] => "a component of an unknown version",
            _ => "the first few bytes of a module",
        },
        _ if WASM.starts_with(bytes) => "the first few bytes of a module",
        [0x7f, b'E', b'L', b'F', ..] => match Engine::detect_precompiled(bytes) {
            Some(Precompiled::Module | Precompiled::Component) => "precompiled code",
            None => "a program for this machine (ELF)",
        },
        _ => match std::str::from_utf8(bytes) {
            Ok(text) if text.trim_start().starts_with(['(', ';']) => "WebAssembly text",
            Ok(_) => "text",
            Err(_) => "something else",
        },
    };
    Err(Refused::NotAComponent { found: found.to_owned() })
}
