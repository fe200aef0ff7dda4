//! The host functions that a guest may import: each is counted, and handed on to the
//! capability that does the work.
//!
//! A host function is added here and in the file of its capability.

use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::{WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfig;
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use super::http;
use super::log::LogLevel;
use super::state::GuestState;
use crate::bindings::v0_1::Plugin;
use crate::bindings::v0_1::exosphere::node as wit;

/// Links every import that a plugin may have.
pub(crate) fn new_linker(engine: &Engine) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    // This adds every interface of WASI 0.2 except HTTP.
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, config)?;
    http::link(&mut linker)?;
    Plugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// `exosphere:node/context`
impl wit::context::Host for GuestState {
    fn namespace(&mut self) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.context.namespace.clone())
    }

    fn graph(&mut self) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.context.graph.clone())
    }

    fn run(&mut self) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.context.run.clone())
    }

    fn state(&mut self) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.context.state.clone())
    }

    fn identifier(&mut self) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.context.identifier.clone())
    }

    fn attempt(&mut self) -> wasmtime::Result<u32> {
        self.count_call()?;
        Ok(self.context.attempt)
    }

    fn idempotency_key(&mut self) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.context.idempotency_key.clone())
    }

    fn deadline(&mut self) -> wasmtime::Result<u64> {
        self.count_call()?;
        Ok(u64::try_from(self.deadline).unwrap_or(0))
    }
}

/// `exosphere:node/store`
impl wit::store::Host for GuestState {
    async fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        Ok(self.store.get(&self.limits, &key).await?)
    }

    fn set(&mut self, key: String, value: String) -> wasmtime::Result<()> {
        self.count_call()?;
        Ok(self.store.set(&self.limits, &key, value)?)
    }

    fn remove(&mut self, key: String) -> wasmtime::Result<()> {
        self.count_call()?;
        Ok(self.store.remove(&self.limits, &key)?)
    }

    async fn keys(&mut self) -> wasmtime::Result<Vec<String>> {
        self.count_call()?;
        Ok(self.store.keys().await?)
    }

    fn increment(&mut self, key: String, by: i64) -> wasmtime::Result<()> {
        self.count_call()?;
        Ok(self.store.increment(&self.limits, &key, by)?)
    }
}

/// `exosphere:node/secrets`
impl wit::secrets::Host for GuestState {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        Ok(self.secrets.visible(&name).map(str::to_owned))
    }
}

/// `exosphere:node/log`
impl wit::log::Host for GuestState {
    fn write(&mut self, level: wit::log::Level, message: String) -> wasmtime::Result<()> {
        self.count_call()?;
        let level = match level {
            wit::log::Level::Debug => LogLevel::Debug,
            wit::log::Level::Info => LogLevel::Info,
            wit::log::Level::Warn => LogLevel::Warn,
            wit::log::Level::Error => LogLevel::Error,
        };
        self.logs.write(level, &message);
        Ok(())
    }
}

/// `wasi:config/store`
fn config(state: &mut GuestState) -> WasiConfig<'_> {
    state.count_wasi_call();
    state.config.view()
}

impl WasiView for GuestState {
    // Called once for each call of a WASI function.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.count_wasi_call();
        WasiCtxView { ctx: self.wasi.ctx(), table: &mut self.table }
    }
}

impl WasiHttpView for GuestState {
    // Called once for each call of a WASI HTTP function.
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.count_wasi_call();
        self.http.view(&mut self.table)
    }
}
