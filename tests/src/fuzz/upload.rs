//! Target `upload`: bytes that claim to be a plugin. Valid plugins are cut, damaged and joined with
//! others; random modules are put into a valid one, where they are compiled and started.
//!
//! Promises: an answer, never an internal error; no slot stays taken.

use anyhow::{Result, ensure};
use arbitrary::Unstructured;
use exosphere_sandbox::{
    AdmissionError, AdmissionLimits, Compiler, DEFAULT_CACHE_BYTES, HttpConfig, Sandbox,
    SandboxConfig,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Chance, Outcome, Target};
use crate::guest::{self, Changes};
use crate::{binary, component};

/// Slots of the sandbox.
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

    /// Returns the small plugin with a random module in it, of which it makes an instance.
    fn with_a_module(&self, chance: &mut Chance) -> Option<Vec<u8>> {
        /// The small plugin has two modules of its own.
        const MODULE: u8 = 2;
        let bytes = chance.bytes(4096);
        let config = wasm_smith::Config {
            max_imports: 0,
            max_memory32_bytes: 1 << 20,
            max_funcs: 20,
            max_instructions: 200,
            threads_enabled: chance.once_in(8),
            memory64_enabled: chance.once_in(8),
            gc_enabled: chance.once_in(8),
            exceptions_enabled: chance.once_in(8),
            tail_call_enabled: chance.once_in(8),
            relaxed_simd_enabled: chance.once_in(8),
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
    fn input(&mut self, chance: &mut Chance) -> Vec<u8> {
        let elsewhere = chance.one(&self.large).clone();
        let mut bytes = match chance.below(20) {
            // Seldom, since a nearly valid one takes long to compile.
            0 => elsewhere.clone(),
            1..=8 => self.with_a_module(chance).unwrap_or_else(|| self.small.clone()),
            _ => self.small.clone(),
        };
        // Some modules are left as they were made.
        if !chance.once_in(3) {
            chance.damage(&mut bytes, &elsewhere);
        }
        bytes
    }

    fn attempt(&mut self, input: &[u8]) -> Result<Outcome> {
        let answer = self.runtime.block_on(self.sandbox.admit(input));
        ensure!(self.sandbox.free_slots() == SLOTS as usize, "a slot stays taken");
        match answer {
            Ok(_) => Ok(Outcome::Taken),
            Err(refused) => {
                ensure!(!matches!(refused, AdmissionError::Internal { .. }), "{refused}");
                let words = refused.to_string();
                ensure!(words.len() < 16 * 1024, "it is refused in {} bytes", words.len());
                let steers = words.contains(|c: char| c.is_control() && c != '\n' && c != '\t');
                ensure!(!steers, "a terminal would act on {words:?}");
                Ok(Outcome::Refused)
            }
        }
    }
}
