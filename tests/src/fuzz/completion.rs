//! Target `completion`: the completion of a node. A hand-written guest returns the bytes that it is
//! given, as outputs, as data of a prune, as a delay or as a failure.
//!
//! Promises: an accepted output is a JSON object of at most 64 levels, data of a prune is JSON, and
//! a delay has a valid length. Anything else is a typed failure without control characters, and
//! never an internal error.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use exosphere_domain::failure::FailureKind;
use exosphere_domain::journal::Entry;
use exosphere_domain::limits::{Limit, Limits};
use exosphere_domain::outcome;
use exosphere_sandbox::{
    Cancel, Context, Invocation, Plugin, RunStore, Sandbox, Secrets, Unavailable,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Acceptance, Mutator, Target};
use crate::guest::{self, Changes};

/// The guest as WebAssembly text.
const MIRROR: &str = include_str!("../../fuzz/mirror.wat");

/// The first byte of an input: how the rest is returned.
const KINDS: &[u8] = b"oooolpfr";

/// A sandbox with the guest in it.
pub struct Completions {
    runtime: Runtime,
    sandbox: Sandbox,
    mirror: Arc<Plugin>,
    seeds: Vec<Vec<u8>>,
    _folder: TempDir,
}

impl Completions {
    pub(super) fn new() -> Result<Completions> {
        let (sandbox, folder) = super::upload::sandbox()?;
        let runtime = Runtime::new()?;
        let bytes = guest::component(&Changes { functions: MIRROR, ..Changes::default() })?;
        let digest = runtime.block_on(sandbox.admit(&bytes))?.digest;
        let fetch = || async { Ok::<_, std::io::Error>(bytes) };
        let mirror = runtime.block_on(sandbox.load(digest, fetch))?;
        Ok(Completions {
            runtime,
            sandbox,
            mirror,
            seeds: super::seeds("completion")?,
            _folder: folder,
        })
    }

    fn invoke(&self, inputs: String) -> Result<outcome::Outcome> {
        let invocation = Invocation {
            node: "attack".parse()?,
            inputs,
            context: Context::default(),
            store: Arc::new(EmptyStore),
            secrets: Secrets::default(),
            grants: Arc::default(),
            limits: Limits::default(),
            waited: Duration::ZERO,
            cancel: Cancel::default(),
        };
        Ok(self.runtime.block_on(self.sandbox.invoke(&self.mirror, invocation)).outcome)
    }
}

impl Target for Completions {
    fn input(&mut self, mutator: &mut Mutator) -> Vec<u8> {
        let mut bytes = match mutator.below(4) {
            0 => mutator.random_json(6).to_string().into_bytes(),
            1 => {
                let deep = mutator.below(130);
                format!("{{\"x\":{}{}}}", "[".repeat(deep), "]".repeat(deep)).into_bytes()
            }
            _ => mutator.pick(&self.seeds).clone(),
        };
        let donor = mutator.pick(&self.seeds);
        if mutator.once_in(2) {
            mutator.mutate_bytes(&mut bytes, donor);
        }
        bytes.insert(0, *mutator.pick(KINDS));
        bytes
    }

    fn attempt(&mut self, input: &[u8]) -> Result<Acceptance> {
        let Some((kind, bytes)) = input.split_first() else { return Ok(Acceptance::Rejected) };
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let kind = char::from(*kind);
        match self.invoke(format!("{kind}{digits}"))? {
            outcome::Outcome::Outputs(outputs) => {
                ensure!(matches!(kind, 'o' | 'l'), "{kind} became outputs");
                for output in &outputs {
                    ensure_output(output)?;
                }
            }
            outcome::Outcome::Prune(data) => {
                ensure!(kind == 'p', "{kind} became a prune");
                data.map(|data| serde_json::from_str::<Value>(&data)).transpose()?;
            }
            outcome::Outcome::RequeueAfter(delay) => {
                ensure!(kind == 'r' && delay > 0, "a delay of {delay}");
            }
            outcome::Outcome::Failed(failure) => {
                let kinds = match kind {
                    'f' => {
                        [FailureKind::Permanent, FailureKind::Retryable, FailureKind::InvalidOutput]
                    }
                    _ => [FailureKind::InvalidOutput, FailureKind::Limit, FailureKind::Limit],
                };
                ensure!(kinds.contains(&failure.kind), "{kind} became {failure}");
                let is_control = |c: char| c.is_control() && c != '\n' && c != '\t';
                ensure!(
                    !failure.message.contains(is_control),
                    "the message has control characters: {failure:?}"
                );
                return Ok(Acceptance::Rejected);
            }
            other => bail!("{kind} became {other:?}"),
        }
        Ok(Acceptance::Accepted)
    }
}

fn ensure_output(output: &str) -> Result<()> {
    let value: Value = serde_json::from_str(output)?;
    ensure!(value.is_object(), "an output is not an object: {output}");
    let max = Limits::default().get(Limit::OutputDepth);
    ensure!(depth(&value) <= max, "an output has {} levels: {output}", depth(&value));
    Ok(())
}

fn depth(value: &Value) -> u64 {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A store without a key.
struct EmptyStore;

impl RunStore for EmptyStore {
    fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Unavailable>> {
        async { Ok(None) }.boxed()
    }

    fn all(&self) -> BoxFuture<'_, Result<Vec<(String, Entry)>, Unavailable>> {
        async { Ok(Vec::new()) }.boxed()
    }
}
