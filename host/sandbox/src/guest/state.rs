//! The data of a guest's wasmtime store, made for one execution and dropped with it,
//! and the store settings that enforce the limits.
//!
//! Not here: the capabilities, each of which has its own file.

use std::sync::Arc;

use exosphere_domain::grant::Grants;
use exosphere_domain::ids::Millis;
use exosphere_domain::journal::Journal;
use exosphere_domain::limits::{Limit, Limits};
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime::{CallHook, Engine, Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::WasiCtx;

use crate::bindings::v0_1::Plugin;
use crate::clock::now;
use crate::failure::Stop;
use crate::guest::config::Config;
use crate::guest::context::Context;
use crate::guest::http::{Http, Network};
use crate::guest::log::SharedLogs;
use crate::guest::secrets::Secrets;
use crate::guest::store::RunStore;
use crate::limits::cpu_meter::Meter;
use crate::limits::memory::Limiter;
use crate::limits::signal::Breach;

/// Bytes that lifting one output may take besides its text.
const BYTES_AN_OUTPUT: u64 = 64;

/// The caller's parameters of one execution.
pub(crate) struct Session {
    pub(crate) context: Context,
    pub(crate) store: Arc<dyn RunStore>,
    pub(crate) secrets: Secrets,
    pub(crate) grants: Arc<Grants>,
    pub(crate) network: Arc<Network>,
    pub(crate) limits: Limits,
}

/// The data of one guest's store.
pub(crate) struct Host {
    pub(crate) context: Context,
    pub(crate) deadline: Millis,
    pub(crate) secrets: Secrets,
    pub(crate) store: Arc<dyn RunStore>,
    pub(crate) journal: Journal,
    pub(crate) keys_read: u32,
    pub(crate) bytes_written: u64,
    pub(crate) logs: SharedLogs,
    pub(crate) wasi: Option<WasiCtx>,
    pub(crate) config: Config,
    pub(crate) http: Http,
    pub(crate) table: ResourceTable,
    pub(crate) host_calls: u32,
    pub(crate) limiter: Limiter,
    pub(crate) meter: Arc<Meter>,
    pub(crate) breach: Arc<Breach>,
    pub(crate) limits: Limits,
}

impl Host {
    fn new(session: Session) -> Host {
        let mut table = ResourceTable::new();
        table.set_max_capacity(session.limits.size(Limit::Handles));
        let timeout = Millis::try_from(session.limits.get(Limit::TimeoutMs)).unwrap_or(Millis::MAX);
        let logs = SharedLogs::new(&session.limits, session.secrets.clone());
        let breach = Arc::default();
        let bounds = (&session.limits, &logs, &breach);
        Host {
            config: Config::new(&session.grants),
            http: Http::new(session.network, session.grants, &session.context, bounds),
            deadline: now().saturating_add(timeout),
            context: session.context,
            store: session.store,
            journal: Journal::default(),
            keys_read: 0,
            bytes_written: 0,
            logs,
            secrets: session.secrets,
            wasi: None,
            table,
            host_calls: 0,
            limiter: Limiter::new(&session.limits),
            meter: Arc::default(),
            breach,
            limits: session.limits,
        }
    }

    /// Counts a call of a host function, and ends a guest that makes too many.
    pub(crate) fn count_call(&mut self) -> Result<(), Stop> {
        self.host_calls = self.host_calls.saturating_add(1);
        match self.has_called_too_often() {
            true => Err(Stop::Limit(Limit::HostCalls)),
            false => Ok(()),
        }
    }

    fn has_called_too_often(&self) -> bool {
        u64::from(self.host_calls) > self.limits.get(Limit::HostCalls)
    }

    /// Returns the limit that the guest exceeded where no host function could end it.
    pub(crate) fn overrun(&self) -> Option<Limit> {
        let called = self.has_called_too_often().then_some(Limit::HostCalls);
        called.or_else(|| self.breach.limit())
    }
}

/// Links every import that a plugin may have.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    crate::guest::wasi::link(&mut linker)?;
    crate::guest::config::link(&mut linker)?;
    crate::guest::http::link(&mut linker)?;
    Plugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)?;
    Ok(linker)
}

/// Creates a store for one execution, with every limit set: start functions of the
/// guest run as soon as it is instantiated.
pub(crate) fn store(engine: &Engine, session: Session) -> Store<Host> {
    let (handles, lifted) =
        (session.limits.size(Limit::Handles), session.limits.size(Limit::LiftedBytes));
    let mut store = Store::new(engine, Host::new(session));
    store.limiter(|host| &mut host.limiter);
    store.set_max_component_handles(handles);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(at_tick);
    store.set_hostcall_fuel(lifted);
    store.call_hook(at_border);
    store
}

/// Handles a tick of the engine's clock in a running guest: ends the guest if it
/// exceeded a limit, or else makes it yield.
fn at_tick(store: StoreContextMut<'_, Host>) -> wasmtime::Result<UpdateDeadline> {
    let host = store.data();
    if host.meter.running() > host.limits.time(Limit::CpuMs) {
        return Err(Stop::Limit(Limit::CpuMs).into());
    }
    if let Some(limit) = host.overrun() {
        return Err(Stop::Limit(limit).into());
    }
    host.meter.yields();
    Ok(UpdateDeadline::Yield(1))
}

/// Sets how many bytes may be copied out of the guest next: few in a call of a host
/// function, many after its own function has returned.
fn at_border(mut store: StoreContextMut<'_, Host>, hook: CallHook) -> wasmtime::Result<()> {
    match hook {
        CallHook::CallingHost => {
            let bytes = store.data().limits.size(Limit::LiftedBytes);
            store.set_hostcall_fuel(bytes);
        }
        CallHook::ReturningFromWasm => {
            let limits = &store.data().limits;
            let records = limits.get(Limit::Outputs).saturating_mul(BYTES_AN_OUTPUT);
            let bytes = limits.get(Limit::OutputBytes).saturating_add(records);
            store.set_hostcall_fuel(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        CallHook::CallingWasm | CallHook::ReturningFromHost => {}
    }
    Ok(())
}
