//! Target `upload`: bytes uploaded as a plugin. Valid plugins are cut, damaged and joined; random
//! modules are put into a valid one, where they are compiled and started.
//!
//! Promises: each upload has an answer, never an internal error, and no slot stays occupied.

use anyhow::{Result, ensure};
use arbitrary::Unstructured;
use exosphere_sandbox::{
    AdmissionError, AdmissionLimits, Compiler, DEFAULT_CACHE_BYTES, HttpConfig, Sandbox,
    SandboxConfig,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Acceptance, Mutator, Target};
use crate::guest::{self, Changes};
use crate::{binary, component};

/// Number of slots of the sandbox.
const SLOTS: u32 = 2;

/// A sandbox, and the plugins that are damaged.
pub struct Uploads {
    runtime: Runtime,
    sandbox: Sandbox,
    small: Vec<u8>,
    large: Vec<Vec<u8>>,
    _folder: TempDir,
}

/// Creates a sandbox of a few slots, and its temporary folder.
pub(super) fn sandbox() -> Result<(Sandbox, TempDir)> {
    let folder = tempfile::tempdir()?;
    let sandbox = Sandbox::new(SandboxConfig {
        slots: SLOTS,
        limits: exosphere_domain::limits::Limits::default(),
        cache_dir: folder.path().to_owned(),
        cache_key: [7; 32],
        http: HttpConfig::default(),
        cache_bytes: DEFAULT_CACHE_BYTES,
        compiler: Compiler {
            program: binary()?,
            arguments: vec!["compile".into()],
            limits: AdmissionLimits::default(),
        },
    })?;
    Ok((sandbox, folder))
}

impl Uploads {
    pub(super) fn new() -> Result<Uploads> {
        let (sandbox, folder) = sandbox()?;
        let mut large = Vec::new();
        for text in super::seeds("upload")? {
            large.push(wat::parse_bytes(&text)?.into_owned());
        }
        large.push(wat::parse_str(include_str!("../../fixtures/minimal.wat"))?);
        for plugin in ["tally", "text"] {
            large.push(component(plugin)?);
        }
        Ok(Uploads {
            runtime: Runtime::new()?,
            sandbox,
            small: guest::component(&Changes::default())?,
            large,
            _folder: folder,
        })
    }

    /// Returns the small plugin with an instance of a random module.
    fn with_a_module(&self, mutator: &mut Mutator) -> Option<Vec<u8>> {
        /// The small plugin has two modules of its own.
        const MODULE: u8 = 2;
        let bytes = mutator.bytes(4096);
        let config = wasm_smith::Config {
            max_imports: 0,
            max_memory32_bytes: 1 << 20,
            max_funcs: 20,
            max_instructions: 200,
            threads_enabled: mutator.once_in(8),
            memory64_enabled: mutator.once_in(8),
            gc_enabled: mutator.once_in(8),
            exceptions_enabled: mutator.once_in(8),
            tail_call_enabled: mutator.once_in(8),
            relaxed_simd_enabled: mutator.once_in(8),
            ..wasm_smith::Config::default()
        };
        let module =
            wasm_smith::Module::new(config, &mut Unstructured::new(&bytes)).ok()?.to_bytes();
        let mut plugin = self.small.clone();
        section(&mut plugin, 1, &module);
        // One instance of that module, without imports.
        section(&mut plugin, 2, &[1, 0, MODULE, 0]);
        Some(plugin)
    }
}

/// Adds a section of a component: its kind, its length, its bytes.
fn section(component: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    component.push(kind);
    let mut length = bytes.len();
    while length >= 128 {
        component.push((length % 128) as u8 | 128);
        length /= 128;
    }
    component.push(length as u8);
    component.extend(bytes);
}

impl Target for Uploads {
    fn input(&mut self, mutator: &mut Mutator) -> Vec<u8> {
        let donor = mutator.pick(&self.large).clone();
        let mut bytes = match mutator.below(20) {
            // These are rare, because a nearly valid component takes long to compile.
            0 => donor.clone(),
            1..=8 => self.with_a_module(mutator).unwrap_or_else(|| self.small.clone()),
            _ => self.small.clone(),
        };
        // Some modules are not damaged.
        if !mutator.once_in(3) {
            mutator.mutate_bytes(&mut bytes, &donor);
        }
        bytes
    }

    fn attempt(&mut self, input: &[u8]) -> Result<Acceptance> {
        let answer = self.runtime.block_on(self.sandbox.admit(input));
        ensure!(self.sandbox.free_instances() == SLOTS as usize, "a slot stays occupied");
        match answer {
            Ok(_) => Ok(Acceptance::Accepted),
            Err(refused) => {
                ensure!(!matches!(refused, AdmissionError::Internal { .. }), "{refused}");
                let message = refused.to_string();
                ensure!(message.len() < 16 * 1024, "the message has {} bytes", message.len());
                let has_controls =
                    message.contains(|c: char| c.is_control() && c != '\n' && c != '\t');
                ensure!(!has_controls, "the message has control characters: {message:?}");
                Ok(Acceptance::Rejected)
            }
        }
    }
}
