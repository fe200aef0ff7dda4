//! The data of a guest's wasmtime store, made for one execution and dropped with it,
//! and the store settings that enforce the limits.
//!
//! Not here: the capabilities, each of which has its own file, and the host functions,
//! which `linker` offers.

use std::sync::Arc;

use exosphere_domain::grant::Grants;
use exosphere_domain::ids::Millis;
use exosphere_domain::limits::{Limit, Limits};
use wasmtime::component::ResourceTable;
use wasmtime::{CallHook, Engine, Store, StoreContextMut, UpdateDeadline};

use super::config::Config;
use super::context::Context;
use super::http::{Http, Network};
use super::log::SharedLogs;
use super::run_store::RunStore;
use super::secrets::Secrets;
use super::store::StoreAccess;
use super::trap::HostTrap;
use super::wasi::Wasi;
use crate::clock::now;
use crate::limits::cpu_meter::CpuMeter;
use crate::limits::memory::MemoryLimiter;
use crate::limits::signal::LimitSignal;

/// Bytes that lifting one output may take besides its text.
const BYTES_PER_OUTPUT: u64 = 64;

/// The parameters of one instance, which the caller of an execution sets.
pub(crate) struct InstanceParams {
    pub(crate) context: Context,
    pub(crate) store: Arc<dyn RunStore>,
    pub(crate) secrets: Secrets,
    pub(crate) grants: Arc<Grants>,
    pub(crate) network: Arc<Network>,
    pub(crate) limits: Limits,
}

/// The data of one guest's store.
pub(crate) struct GuestState {
    pub(crate) context: Context,
    pub(crate) deadline: Millis,
    pub(crate) secrets: Secrets,
    pub(crate) store: StoreAccess,
    pub(crate) logs: SharedLogs,
    pub(crate) wasi: Wasi,
    pub(crate) config: Config,
    pub(crate) http: Http,
    pub(crate) table: ResourceTable,
    pub(crate) host_calls: u32,
    pub(crate) memory: MemoryLimiter,
    pub(crate) cpu_meter: Arc<CpuMeter>,
    pub(crate) limit_signal: Arc<LimitSignal>,
    pub(crate) limits: Limits,
}

impl GuestState {
    fn new(params: InstanceParams) -> GuestState {
        let mut table = ResourceTable::new();
        table.set_max_capacity(params.limits.size(Limit::Handles));
        let timeout = Millis::try_from(params.limits.get(Limit::TimeoutMs)).unwrap_or(Millis::MAX);
        let logs = SharedLogs::new(&params.limits, params.secrets.clone());
        let limit_signal = Arc::default();
        let bounds = (&params.limits, &logs, &limit_signal);
        GuestState {
            config: Config::new(&params.grants),
            http: Http::new(params.network, params.grants, &params.context, bounds),
            deadline: now().saturating_add(timeout),
            context: params.context,
            store: StoreAccess::new(params.store),
            wasi: Wasi::new(&params.limits, &logs),
            logs,
            secrets: params.secrets,
            table,
            host_calls: 0,
            memory: MemoryLimiter::new(&params.limits),
            cpu_meter: Arc::default(),
            limit_signal,
            limits: params.limits,
        }
    }

    /// Counts a call of a host function, and ends a guest that makes too many.
    pub(super) fn count_call(&mut self) -> Result<(), HostTrap> {
        self.count_wasi_call();
        if self.has_called_too_often() { Err(HostTrap::Limit(Limit::HostCalls)) } else { Ok(()) }
    }

    /// Counts a call of a WASI function. Such a call cannot be refused, so the next tick
    /// or the end of the execution notices too many calls.
    pub(super) fn count_wasi_call(&mut self) {
        self.host_calls = self.host_calls.saturating_add(1);
    }

    fn has_called_too_often(&self) -> bool {
        u64::from(self.host_calls) > self.limits.get(Limit::HostCalls)
    }

    /// Returns the limit that the guest exceeded where no host function could end it.
    pub(crate) fn exceeded_limit(&self) -> Option<Limit> {
        let called = self.has_called_too_often().then_some(Limit::HostCalls);
        called.or_else(|| self.limit_signal.limit())
    }
}

/// Creates a store for one execution, with every limit set: start functions of the
/// guest run as soon as it is instantiated.
pub(crate) fn new_store(engine: &Engine, params: InstanceParams) -> Store<GuestState> {
    let (handles, lifted) =
        (params.limits.size(Limit::Handles), params.limits.size(Limit::LiftedBytes));
    let mut store = Store::new(engine, GuestState::new(params));
    store.limiter(|state| &mut state.memory);
    store.set_max_component_handles(handles);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(on_epoch);
    store.set_hostcall_fuel(lifted);
    store.call_hook(on_call_hook);
    store
}

/// Handles a tick of the engine's clock in a running guest: ends the guest if it
/// exceeded a limit, or else makes it yield.
fn on_epoch(store: StoreContextMut<'_, GuestState>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data();
    if state.cpu_meter.has_exceeded(state.limits.time(Limit::CpuMs)) {
        return Err(HostTrap::Limit(Limit::CpuMs).into());
    }
    if let Some(limit) = state.exceeded_limit() {
        return Err(HostTrap::Limit(limit).into());
    }
    state.cpu_meter.record_yield();
    Ok(UpdateDeadline::Yield(1))
}

/// Sets how many bytes may be copied out of the guest next: few in a call of a host
/// function, many after its own function has returned.
fn on_call_hook(
    mut store: StoreContextMut<'_, GuestState>,
    hook: CallHook,
) -> wasmtime::Result<()> {
    match hook {
        CallHook::CallingHost => {
            let bytes = store.data().limits.size(Limit::LiftedBytes);
            store.set_hostcall_fuel(bytes);
        }
        CallHook::ReturningFromWasm => {
            let limits = &store.data().limits;
            let records = limits.get(Limit::Outputs).saturating_mul(BYTES_PER_OUTPUT);
            let bytes = limits.get(Limit::OutputBytes).saturating_add(records);
            store.set_hostcall_fuel(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        CallHook::CallingWasm | CallHook::ReturningFromHost => {}
    }
    Ok(())
}
