//! What a compilation makes: compiled code, and what was seen of the component
//! that it was made from. It goes over a pipe and lies in the cache as it is.
//!
//! Loading it is running it: nothing in the code is checked. So there is no
//! way to one but those below, and each says why its bytes are ours.

use exosphere_domain::json::from_bytes;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::inspect::Facts;

/// Bytes of the length at its head.
const LENGTH: usize = 8;

/// Code that this program compiled, here or in a process of its own.
pub(crate) struct Artifact {
    /// The length of the facts, the facts as JSON, the code.
    bytes: Vec<u8>,
    /// Where it begins.
    start: usize,
}

impl Artifact {
    /// There is no code, since the upload was refused.
    pub(crate) fn none() -> Artifact {
        Artifact { bytes: Vec::new(), start: 0 }
    }

    /// What this process compiled itself.
    pub(crate) fn compiled(facts: &Facts, code: &[u8]) -> serde_json::Result<Artifact> {
        let facts = serde_json::to_vec(facts)?;
        let mut bytes = Vec::with_capacity(LENGTH + facts.len() + code.len());
        bytes.extend((facts.len() as u64).to_le_bytes());
        bytes.extend(facts);
        bytes.extend(code);
        Ok(Artifact { bytes, start: 0 })
    }

    /// What came over the pipe from the process that we started, from `start`
    /// on: nobody else has the other end.
    pub(crate) fn said(bytes: Vec<u8>, start: usize) -> Option<Artifact> {
        (start <= bytes.len()).then_some(Artifact { bytes, start })
    }

    /// What the cache has found to be authentic, from `start` on.
    pub(crate) fn authentic(bytes: Vec<u8>, start: usize) -> Option<Artifact> {
        Artifact::said(bytes, start)
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn parts(&self) -> Option<(Facts, &[u8])> {
        let (length, rest) = self.bytes().split_at_checked(LENGTH)?;
        let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        let (facts, code) = rest.split_at_checked(length)?;
        Some((from_bytes(facts).ok()?, code))
    }

    /// Makes it ready to run.
    pub(crate) fn load(&self, engine: &Engine) -> wasmtime::Result<(Facts, Component)> {
        let parts = self.parts();
        let (facts, code) =
            parts.ok_or_else(|| wasmtime::Error::msg("this is no compiled component"))?;
        // SAFETY: the code is what `Engine::precompile_component` made in this
        // program: an artifact comes from this process, from the pipe of one
        // that it started from the same file, or from a file of the cache over
        // which there is a code made with this host's key. Nothing has changed
        // it since, for it lies in our own memory. That it was made for such an
        // engine as this one, `deserialize` looks up itself.
        #[expect(unsafe_code, reason = "the only way to load compiled code")]
        let component = unsafe { Component::deserialize(engine, code) };
        Ok((facts, component?))
    }
}
