//! What an upload must pass before it is a plugin: it is a component, it
//! compiles, it fits the contract, and it can say what its nodes are.
//!
//! Whether what it says makes sense is for the caller to judge.

use std::sync::Arc;
use std::time::{Duration, Instant};

use exosphere_domain::failure::Failure;
use exosphere_domain::ids::Digest;
use exosphere_domain::limits::{Limit, Limits};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Precompiled};

use crate::bindings::v0_1::PluginIndices;
use crate::context::Context;
use crate::engine::{MAX_MEMORIES, MAX_TABLES};
use crate::host::{Host, Session};
use crate::invoke::{Describe, Unanswered};
use crate::plugins::Plugin;
use crate::sandbox::Sandbox;
use crate::secrets::Secrets;
use crate::store::Empty;
use crate::text::{clean_lines, cut};

/// An upload that passed.
#[derive(Debug)]
pub struct Admitted {
    /// What identifies it.
    pub digest: Digest,
    /// What the plugin says of its nodes: text that claims to be JSON, as the
    /// guest gave it.
    pub description: String,
    /// How long it took to compile; next to nothing for one that was loaded.
    pub compile: Duration,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
}

/// Why an upload is no plugin. The text is for whoever uploaded it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refused {
    /// There was nothing in it.
    #[error("the upload is empty; {FIX}")]
    Empty,
    /// It begins like something else.
    #[error("the upload is {found}, not a WebAssembly component; {FIX}")]
    NotAComponent {
        /// What it seems to be.
        found: &'static str,
    },
    /// It cannot be compiled.
    #[error(
        "the component is damaged, cut short, or uses a feature that is off here: {why}; {FIX}"
    )]
    Invalid {
        /// The compiler's words.
        why: String,
    },
    /// It is made of too many parts.
    #[error("the component has {has} {what}; at most {limit} are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        has: u32,
        /// How many there may be.
        limit: u32,
    },
    /// It needs something that the host does not offer, or offers otherwise.
    #[error("the component asks for what this host does not offer: {why}; {FIX}")]
    Imports {
        /// Which import, and what is wrong with it.
        why: String,
    },
    /// It lacks what a plugin must offer, or offers it otherwise.
    #[error("the component is no plugin: {why}; {FIX}")]
    Exports {
        /// Which export, and what is wrong with it.
        why: String,
    },
    /// It could not say what its nodes are.
    #[error("the plugin could not describe its nodes: {0}")]
    Describe(Failure),
    /// A mistake of the host.
    #[error("the component could not be compiled because of a mistake of the host: {why}")]
    Internal {
        /// What is known of it.
        why: String,
    },
}

/// What to do about an upload that does not fit.
const FIX: &str = "build it for wasm32-wasip2 with exosphere-sdk 0.1";

/// What a plugin may take to describe its nodes: it needs milliseconds. By the
/// wall it has far more, since the host may be busy.
const DESCRIBE_CPU_MS: u64 = 2_000;
const DESCRIBE_WALL_MS: u64 = 30_000;

/// Bytes of a description. Schemas of many nodes fit well.
const DESCRIPTION_BYTES: u64 = 1024 * 1024;

/// Bytes of a reason. It may hold names that the upload chose.
const WHY_BYTES: usize = 2048;

impl Sandbox {
    /// Admits an upload, or says why not. The plugin is loaded afterwards, and
    /// in the code cache.
    ///
    /// # Errors
    /// See [`Refused`]; nothing stays of a refused upload.
    pub async fn admit(&self, bytes: &[u8]) -> Result<Admitted, Refused> {
        recognize(bytes)?;
        let digest = Digest::of(bytes);
        let started = Instant::now();
        let plugin = match self.plugins().get(digest) {
            Some(plugin) => plugin,
            None => self.compile(digest, bytes.to_vec()).await?,
        };
        let compile = started.elapsed();
        let description = self.describe(&plugin).await?;
        let imports = plugin.imports().to_vec();
        self.keep(&plugin).await;
        self.plugins().put(plugin);
        Ok(Admitted { digest, description, compile, imports })
    }

    async fn describe(&self, plugin: &Plugin) -> Result<String, Refused> {
        // Everything that a plugin says is copied out of it; a description
        // counts as an output.
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
        self.ask(plugin, session, Describe).await.0.map_err(|unanswered| match unanswered {
            Unanswered::Misfit(error) => Refused::Exports { why: why(&error) },
            Unanswered::Failed(failure) => Refused::Describe(failure),
        })
    }

    /// Compiles and links a component, on a thread that may be blocked.
    pub(crate) async fn compile(
        &self,
        digest: Digest,
        bytes: Vec<u8>,
    ) -> Result<Arc<Plugin>, Refused> {
        let (engine, linker) = (self.engine().clone(), self.linker());
        // One at a time: a compilation takes all the processors as it is.
        let turn = self.compiler().await;
        let compiled = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            recognize(&bytes)?;
            let component = Component::from_binary(&engine, &bytes)
                .map_err(|error| Refused::Invalid { why: why(&error) })?;
            link(&linker, digest, &component).map(Arc::new)
        });
        compiled.await.unwrap_or_else(|error| {
            tracing::error!(%digest, %error, "the compiler failed");
            Err(Refused::Internal { why: "the compiler failed".into() })
        })
    }

    /// Puts the code of a plugin on disk, if it is not there.
    pub(crate) async fn keep(&self, plugin: &Arc<Plugin>) {
        let (plugin, cache) = (Arc::clone(plugin), self.cache());
        // It fails only by a panic, which is logged; the cache is never needed.
        let _ = tokio::task::spawn_blocking(move || {
            cache.put(plugin.digest(), plugin.component());
        })
        .await;
    }

    /// A plugin from the cache on disk, if it is there.
    pub(crate) async fn restore(&self, digest: Digest) -> Option<Arc<Plugin>> {
        let (engine, linker, cache) = (self.engine().clone(), self.linker(), self.cache());
        let restored = tokio::task::spawn_blocking(move || {
            let component = cache.get(&engine, digest)?;
            let linked = link(&linker, digest, &component);
            linked
                .inspect_err(
                    |error| tracing::warn!(%digest, %error, "a cached plugin is no plugin"),
                )
                .ok()
        });
        restored.await.ok().flatten().map(Arc::new)
    }
}

/// Checks a component against the contract.
fn link(linker: &Linker<Host>, digest: Digest, component: &Component) -> Result<Plugin, Refused> {
    if let Some(parts) = component.resources_required() {
        let check = |what, has, limit| match has > limit {
            true => Err(Refused::TooMany { what, has, limit }),
            false => Ok(()),
        };
        check("memories", parts.num_memories, MAX_MEMORIES)?;
        check("tables", parts.num_tables, MAX_TABLES)?;
    }
    let pre = linker.instantiate_pre(component);
    let pre = pre.map_err(|error| Refused::Imports { why: why(&error) })?;
    let indices = PluginIndices::new(&pre);
    let indices = indices.map_err(|error| Refused::Exports { why: why(&error) })?;
    Ok(Plugin::new(digest, pre, indices))
}

fn why(error: &wasmtime::Error) -> String {
    clean_lines(cut(&format!("{error:#}"), WHY_BYTES))
}

/// Tells by its first bytes what an upload is.
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
    Err(Refused::NotAComponent { found })
}
