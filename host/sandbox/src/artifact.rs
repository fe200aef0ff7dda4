//! The artifact of a compilation: compiled code, and the summary of the component that it
//! was made from. The same bytes go over the pipe and into the cache.
//!
//! Loading an artifact runs it: nothing in the code is checked. So it is made only by
//! the constructors below, each of which says why its bytes are trusted.

use exosphere_domain::json::from_bytes;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::admission::inspect::ComponentSummary;

/// Bytes of the length at the head of an artifact.
const LENGTH_BYTES: usize = 8;

/// Code that this program compiled, in this process or in a child process.
pub(crate) struct Artifact {
    /// The length of the summary, the summary as JSON, the code.
    bytes: Vec<u8>,
    /// The offset of the artifact in `bytes`.
    start: usize,
}

impl Artifact {
    /// Returns an artifact without code, for a refused upload.
    pub(crate) fn empty() -> Artifact {
        Artifact { bytes: Vec::new(), start: 0 }
    }

    /// Creates an artifact from code that this process compiled itself.
    pub(crate) fn from_code(
        summary: &ComponentSummary,
        code: &[u8],
    ) -> serde_json::Result<Artifact> {
        let summary = serde_json::to_vec(summary)?;
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + summary.len() + code.len());
        bytes.extend((summary.len() as u64).to_le_bytes());
        bytes.extend(summary);
        bytes.extend(code);
        Ok(Artifact { bytes, start: 0 })
    }

    /// Creates an artifact from the answer of a compiling process, from `start` on. The host
    /// started that process, and no other process has the pipe's other end.
    pub(crate) fn from_pipe(bytes: Vec<u8>, start: usize) -> Option<Artifact> {
        (start <= bytes.len()).then_some(Artifact { bytes, start })
    }

    /// Creates an artifact from a file that the cache has authenticated, from `start` on.
    pub(crate) fn from_cache_file(bytes: Vec<u8>, start: usize) -> Option<Artifact> {
        Artifact::from_pipe(bytes, start)
    }

    /// Returns the bytes of the artifact.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn parts(&self) -> Option<(ComponentSummary, &[u8])> {
        let (length, rest) = self.bytes().split_at_checked(LENGTH_BYTES)?;
        let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        let (summary, code) = rest.split_at_checked(length)?;
        Some((from_bytes(summary).ok()?, code))
    }

    /// Loads the code, ready to run.
    pub(crate) fn load(&self, engine: &Engine) -> wasmtime::Result<(ComponentSummary, Component)> {
        let parts = self.parts();
        let (summary, code) =
            parts.ok_or_else(|| wasmtime::Error::msg("this is not a compiled component"))?;
        // SAFETY: `Engine::precompile_component` made the code in this program. An
        // artifact has one of three sources: this process, the pipe of a process that
        // it started from the same file, or a cache file. A cache file carries an
        // authentication code made with this host's key. The code has not changed
        // since, because it lies in this process's own memory. `deserialize` itself checks
        // that it was made for such an engine as this one.
        #[expect(unsafe_code, reason = "the only way to load compiled code")]
        let component = unsafe { Component::deserialize(engine, code) };
        Ok((summary, component?))
    }
}
