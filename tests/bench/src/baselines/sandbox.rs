//! The sandbox alone: a fresh instance for each call, with all limits and without a database.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use exosphere_domain::journal::Entry;
use exosphere_domain::limits::Limits;
use exosphere_domain::outcome::Outcome;
use exosphere_sandbox::{
    AdmissionLimits, Cancel, Compiler, Context, DEFAULT_CACHE_BYTES, HttpConfig, Invocation,
    Plugin, RunStore, Sandbox, SandboxConfig, Secrets, Unavailable,
};
use exosphere_tests::{binary, component, guest};
use futures::future::BoxFuture;
use tokio::runtime::Runtime;

/// Time for which each node is called.
const TIME_PER_NODE: Duration = Duration::from_secs(1);

/// Two threads that call a node repeatedly.
pub struct SandboxLoop {
    runtime: Runtime,
    sandbox: Arc<Sandbox>,
    nodes: Vec<(&'static str, Arc<Plugin>, &'static str, &'static str)>,
}

impl SandboxLoop {
    /// Sets up a sandbox as the host does.
    pub fn new(folder: &Path) -> Result<SandboxLoop> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let compiler = Compiler {
            program: binary()?,
            arguments: vec!["compile".into()],
            limits: AdmissionLimits::default(),
        };
        let sandbox = runtime.block_on(async {
            Sandbox::new(SandboxConfig {
                slots: 128,
                limits: Limits::default(),
                cache_dir: folder.join("code"),
                cache_key: [7; 32],
                http: HttpConfig::default(),
                cache_bytes: DEFAULT_CACHE_BYTES,
                compiler,
            })
        })?;
        let minimal = guest::component(&guest::Changes::default())?;
        let mut nodes = Vec::new();
        for (label, bytes, name, inputs) in [
            ("the smallest node", minimal, "attack", "{}"),
            (super::RUST_NODE, component("lab")?, "echo", r#"{"value":7}"#),
        ] {
            let plugin = runtime.block_on(async {
                let admitted = sandbox.admit(&bytes).await?;
                let bytes = || async { Ok::<_, std::io::Error>(bytes.clone()) };
                anyhow::Ok(sandbox.load(admitted.digest, bytes).await?)
            })?;
            nodes.push((label, plugin, name, inputs));
        }
        Ok(SandboxLoop { runtime, sandbox: Arc::new(sandbox), nodes })
    }

    /// Returns the calls per second of each node.
    pub fn rates(&self) -> Result<Vec<(&'static str, f64)>> {
        let mut rates = Vec::new();
        for (label, plugin, name, inputs) in &self.nodes {
            let workers: Vec<_> = (0..2)
                .map(|_| {
                    let (sandbox, plugin) = (Arc::clone(&self.sandbox), Arc::clone(plugin));
                    self.runtime.spawn(call(sandbox, plugin, name, inputs))
                })
                .collect();
            let mut rate = 0.0;
            for worker in workers {
                rate += self.runtime.block_on(worker)??;
            }
            rates.push((*label, rate));
        }
        Ok(rates)
    }
}

/// A store without entries.
struct EmptyStore;

impl RunStore for EmptyStore {
    fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Unavailable>> {
        Box::pin(async { Ok(None) })
    }

    fn all(&self) -> BoxFuture<'_, Result<Vec<(String, Entry)>, Unavailable>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

async fn call(
    sandbox: Arc<Sandbox>,
    plugin: Arc<Plugin>,
    node: &'static str,
    inputs: &'static str,
) -> Result<f64> {
    let store = Arc::new(EmptyStore);
    let (started, mut calls) = (Instant::now(), 0u32);
    while started.elapsed() < TIME_PER_NODE {
        let invocation = Invocation {
            node: node.parse().ok().context("no name")?,
            inputs: inputs.into(),
            context: Context::default(),
            store: store.clone(),
            secrets: Secrets::default(),
            grants: Arc::default(),
            limits: Limits::default(),
            waited: Duration::ZERO,
            cancel: Cancel::default(),
        };
        let completion = sandbox.invoke(&plugin, invocation).await;
        ensure!(matches!(completion.outcome, Outcome::Outputs(_)), "{:?}", completion.outcome);
        calls += 1;
    }
    Ok(f64::from(calls) / started.elapsed().as_secs_f64())
}
