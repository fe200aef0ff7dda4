//! The engine that compiles and runs guests: its WebAssembly features and its
//! allocation of instances.
//!
//! Not here: the limits of one execution, which `guest::state` sets for each store. This module
//! has the settings that all executions share.

use exosphere_domain::limits::{Limit, Limits};
use wasmtime::{
    Config, Enabled, Engine, Instance, InstanceAllocationStrategy, Module, ModuleVersionStrategy,
    PoolingAllocationConfig, Store, Strategy, WasmBacktraceDetails, WasmFeatures,
};

/// The exact version of the engine. wasmtime itself tells compiled code apart by its
/// major version only.
pub(crate) const WASMTIME_VERSION: &str = "48.0.8";

/// The maximum number of linear memories in one component. Each reserves 4 GiB of address space
/// (no memory) in every slot.
pub(crate) const MAX_MEMORIES: u32 = 8;

/// The maximum number of tables in one component. A Python component has one for each of its
/// parts.
pub(crate) const MAX_TABLES: u32 = 32;

/// Bytes of stack for host functions, in addition to the guest's own limit.
const HOST_STACK_BYTES: usize = 1536 * 1024;

/// Bytes that a slot keeps resident between two guests, each of memory, table and
/// stack. Wiping them is cheaper than returning them to the system: short nodes start
/// about ten times as fast.
const RESIDENT_BYTES: usize = 64 * 1024;

/// Bytes of the engine's own records of one core instance, and of all records of one
/// component. Python components need more than the default of 1 MiB.
const CORE_INSTANCE_BYTES: usize = 4 * 1024 * 1024;
const COMPONENT_INSTANCE_BYTES: usize = 16 * 1024 * 1024;

/// The WebAssembly features that guests may use. All others are off: no supported guest
/// needs them, and their code is less reviewed. Multi-memory is on since JavaScript
/// needs it.
pub(crate) const ENABLED_FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::COMPONENT_MODEL);

/// Builds an engine for up to `slots` concurrent guests. If the system does not let it reserve
/// the address space, it logs a warning and allocates each guest's memory on demand.
pub(crate) fn build(slots: u32, limits: &Limits) -> wasmtime::Result<Engine> {
    let stack = limits.size(Limit::StackBytes);
    let pooled = InstanceAllocationStrategy::Pooling(pool(slots, limits));
    match start(pooled, stack) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "the pool for sandboxes cannot be set up: nodes run with the same limits but \
                 start several times slower; give the process more address space (`ulimit -v`, \
                 `vm.overcommit_memory`) or ask for fewer slots"
            );
            start(InstanceAllocationStrategy::OnDemand, stack)
        }
    }
}

/// Builds an engine that only compiles, for engines that [`build`] makes. The
/// allocation strategy and the stack size make no difference to the code.
pub(crate) fn for_compiling() -> wasmtime::Result<Engine> {
    let stack = Limits::default().size(Limit::StackBytes);
    Engine::new(&config(InstanceAllocationStrategy::OnDemand, stack)?)
}

/// Creates an engine and proves that it can run a module.
fn start(strategy: InstanceAllocationStrategy, stack: usize) -> wasmtime::Result<Engine> {
    let engine = Engine::new(&config(strategy, stack)?)?;
    probe(&engine)?;
    Ok(engine)
}

fn config(strategy: InstanceAllocationStrategy, stack: usize) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .allocation_strategy(strategy)
        .module_version(ModuleVersionStrategy::Custom(WASMTIME_VERSION.into()))?
        .concurrency_support(false)
        .wasm_features(ENABLED_FEATURES, true)
        .wasm_features(WasmFeatures::all().difference(ENABLED_FEATURES), false)
        .epoch_interruption(true)
        .max_wasm_stack(stack)
        .async_stack_size(stack.saturating_add(HOST_STACK_BYTES))
        .memory_init_cow(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    Ok(config)
}

fn pool(slots: u32, limits: &Limits) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    let instances = u32::try_from(limits.get(Limit::Instances)).unwrap_or(u32::MAX);
    // A slot is a whole guest: a guest with a slot never lacks another part of the
    // pool.
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(instances))
        .total_memories(slots.saturating_mul(MAX_MEMORIES))
        .total_tables(slots.saturating_mul(MAX_TABLES))
        .total_stacks(slots);
    pool.max_core_instances_per_component(instances)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .max_memories_per_module(MAX_MEMORIES)
        .max_tables_per_module(MAX_TABLES)
        .max_core_instance_size(CORE_INSTANCE_BYTES)
        .max_component_instance_size(COMPONENT_INSTANCE_BYTES)
        .max_memory_size(limits.size(Limit::MemoryBytes))
        .table_elements(limits.size(Limit::TableElements));
    pool.linear_memory_keep_resident(RESIDENT_BYTES)
        .table_keep_resident(RESIDENT_BYTES)
        .async_stack_keep_resident(RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// A core module with one page of memory and a byte of data in it, run as a probe.
const PROBE: &[u8] = b"\0asm\x01\0\0\0\x05\x03\x01\0\x01\x0b\x07\x01\0\x41\0\x0b\x01\x2a";

fn probe(engine: &Engine) -> wasmtime::Result<()> {
    let module = Module::from_binary(engine, PROBE)?;
    let mut store = Store::new(engine, ());
    store.set_epoch_deadline(1);
    Instance::new(&mut store, &module, &[])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::hash::{Hash, Hasher};

    use super::*;

    #[test]
    fn wasmtime_version_matches_the_lock_file() {
        let lock = include_str!("../../../Cargo.lock");
        let entry = format!("name = \"wasmtime\"\nversion = \"{WASMTIME_VERSION}\"\n");
        assert!(lock.contains(&entry), "update WASMTIME_VERSION: it keys the code cache");
    }

    #[test]
    fn externally_compiled_code_fits_the_pool() {
        let hash = |engine: &Engine| {
            let mut hasher = std::hash::DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let pooled = build(2, &Limits::default()).unwrap();
        assert!(pooled.pooling_allocator_metrics().is_some());
        assert_eq!(hash(&pooled), hash(&for_compiling().unwrap()));
    }

    #[test]
    fn an_oversized_pool_falls_back() {
        // 2^20 slots would need more address space than there is.
        let engine = build(1 << 20, &Limits::default()).unwrap();
        assert!(engine.pooling_allocator_metrics().is_none());
        assert!(probe(&engine).is_ok());
    }
}
