//! Loads a plugin, ready to run: from memory (`plugins`), else from the code cache on
//! disk (`artifact_cache`), else compiled by a separate process (`compiler`) and linked.
//!
//! Not here: the further checks that an upload must pass; see `admission`.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::ids::Digest;
use wasmtime::component::{Component, Linker};

use crate::admission::error::{AdmissionError, message_of};
use crate::admission::format::check_format;
use crate::admission::inspect::{ComponentSummary, too_many};
use crate::artifact::Artifact;
use crate::bindings::v0_1::PluginIndices;
use crate::engine::{MAX_MEMORIES, MAX_TABLES};
use crate::guest::state::GuestState;
use crate::plugins::Plugin;
use crate::sandbox::{Purpose, Sandbox};

/// The reason why a plugin could not be loaded; `E` is the caller's own error of
/// fetching the bytes.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E: Error + 'static> {
    /// The caller could not fetch the bytes.
    #[error("the bytes of the plugin could not be read")]
    Fetch(#[source] E),
    /// The fetched bytes have another digest.
    #[error(
        "the bytes that are stored under digest {wanted} have digest {found}; upload the plugin again"
    )]
    Digest {
        /// The digest that was asked for.
        wanted: Digest,
        /// The digest of the fetched bytes.
        found: Digest,
    },
    /// The bytes are not a plugin that this version runs.
    #[error("the plugin is not accepted by this version of the host")]
    Refused(#[from] AdmissionError),
}

impl Sandbox {
    /// Loads a plugin that is ready to run: from memory, else from the code cache on
    /// disk, else compiled from the bytes that `fetch` brings. `fetch` is called only
    /// in the last case.
    ///
    /// # Errors
    /// If `fetch` fails, if it brings other bytes than those of `digest`, or if they
    /// are not a plugin that this host runs.
    pub async fn load<E, F>(
        &self,
        digest: Digest,
        fetch: impl FnOnce() -> F + Send,
    ) -> Result<Arc<Plugin>, LoadError<E>>
    where
        E: Error + Send + 'static,
        F: Future<Output = Result<Vec<u8>, E>> + Send,
    {
        let entry = self.plugins().entry(digest);
        if let Some(plugin) = entry.get() {
            return Ok(Arc::clone(plugin));
        }
        let loaded = entry
            .get_or_try_init(|| async {
                if let Some(plugin) = self.load_cached(digest).await {
                    return Ok(plugin);
                }
                let bytes = fetch().await.map_err(LoadError::Fetch)?;
                let found = Digest::from_content(&bytes);
                if found != digest {
                    return Err(LoadError::Digest { wanted: digest, found });
                }
                let compiled = self.compile(digest, &bytes, Purpose::Load).await?;
                if let Some(artifact) = compiled.artifact {
                    self.write_cache(digest, artifact).await;
                }
                Ok(compiled.plugin)
            })
            .await
            .cloned();
        drop(entry);
        self.plugins().evict();
        loaded
    }

    /// Compiles a component in a separate process, and links it.
    pub(crate) async fn compile(
        &self,
        digest: Digest,
        bytes: &[u8],
        purpose: Purpose<'_>,
    ) -> Result<CompiledPlugin, AdmissionError> {
        check_format(bytes)?;
        let (artifact, started) = self.compile_in_turn(purpose, bytes).await?;
        let (engine, linker) = (self.engine().clone(), self.linker());
        let linked = tokio::task::spawn_blocking(move || {
            let loaded = artifact.load(&engine);
            // This program made the code for this engine. Only its size can be wrong,
            // which the engine's pool checks no earlier than here.
            let (summary, component) = loaded.map_err(|error| {
                tracing::info!(%digest, error = format!("{error:#}"), "fresh code does not load");
                AdmissionError::DoesNotFit { cause: message_of(&error) }
            })?;
            let plugin = Arc::new(link(&linker, digest, &component, summary)?);
            Ok(CompiledPlugin { plugin, artifact: Some(artifact), elapsed: started.elapsed() })
        });
        linked.await.unwrap_or_else(|error| {
            tracing::error!(%digest, %error, "a compiled component could not be linked");
            Err(AdmissionError::Internal { cause: "the component could not be linked".into() })
        })
    }

    /// Writes the code of a plugin to the cache on disk, unless the cache has it.
    pub(crate) async fn write_cache(&self, digest: Digest, artifact: Artifact) {
        let cache = self.cache();
        // The task fails only by a panic, which is logged; the cache is optional.
        let _ = tokio::task::spawn_blocking(move || cache.put(digest, &artifact)).await;
    }

    /// Loads a plugin from the cache on disk, if it is there.
    pub(crate) async fn load_cached(&self, digest: Digest) -> Option<Arc<Plugin>> {
        let (engine, linker, cache) = (self.engine().clone(), self.linker(), self.cache());
        let restored = tokio::task::spawn_blocking(move || {
            let (summary, component) = cache.get(&engine, digest)?;
            let linked = link(&linker, digest, &component, summary);
            linked
                .inspect_err(
                    |error| tracing::warn!(%digest, %error, "a cached plugin is not valid"),
                )
                .ok()
        });
        restored.await.ok().flatten().map(Arc::new)
    }
}

/// A plugin that is ready to run, with its code if it was compiled just now.
pub(crate) struct CompiledPlugin {
    pub(crate) plugin: Arc<Plugin>,
    /// The compiled code; `None` if the plugin came from the cache.
    pub(crate) artifact: Option<Artifact>,
    pub(crate) elapsed: Duration,
}

/// Checks a component against the contract and links it.
fn link(
    linker: &Linker<GuestState>,
    digest: Digest,
    component: &Component,
    summary: ComponentSummary,
) -> Result<Plugin, AdmissionError> {
    // The parts of a module count each time that it is instantiated.
    if let Some(parts) = component.resources_required() {
        let check = |part, has, limit| {
            if has > limit {
                Err(too_many(part, part, u64::from(has), u64::from(limit)))
            } else {
                Ok(())
            }
        };
        check("memories", parts.num_memories, MAX_MEMORIES)?;
        check("tables", parts.num_tables, MAX_TABLES)?;
    }
    let pre = linker.instantiate_pre(component);
    let pre = pre.map_err(|error| AdmissionError::Imports { cause: message_of(&error) })?;
    let indices = PluginIndices::new(&pre);
    let indices = indices.map_err(|error| AdmissionError::Exports { cause: message_of(&error) })?;
    Ok(Plugin::new(digest, pre, indices, summary))
}
