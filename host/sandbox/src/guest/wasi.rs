//! WASI without access to the system: no environment, arguments, files or sockets.
//! Programs of the standard libraries of Rust and Python always import it, so it is
//! linked. Only clocks, random numbers and the output streams work.

use exosphere_domain::limits::Limit;
use wasmtime::component::Linker;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::guest::log::{LogLevel, LogStream};
use crate::guest::state::Host;

/// Links every interface of WASI 0.2 but HTTP.
pub(crate) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)
}

impl WasiView for Host {
    // Called once for each call of a WASI function. It cannot fail, so the next tick or
    // the end of the call notices too many calls.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.host_calls = self.host_calls.saturating_add(1);
        // Made when first needed: seeding its random numbers costs more than everything
        // else in a small node, and many nodes never need them.
        let (logs, random) = (&self.logs, self.limits.get(Limit::RandomBytes));
        let ctx = self.wasi.get_or_insert_with(|| {
            WasiCtx::builder()
                .stdout(LogStream::new(logs, LogLevel::Info))
                .stderr(LogStream::new(logs, LogLevel::Warn))
                .max_random_size(random)
                .allow_tcp(false)
                .allow_udp(false)
                .allow_ip_name_lookup(false)
                .build()
        });
        WasiCtxView { ctx, table: &mut self.table }
    }
}
