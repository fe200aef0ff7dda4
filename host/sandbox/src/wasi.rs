//! WASI with nothing behind it: no environment, arguments, files or sockets.
//! Programs of the standard libraries of Rust and Python import it whatever
//! they use, so it is there; clocks, random numbers and the output streams
//! are all that answers.

use wasmtime::component::Linker;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::host::Host;
use crate::log::{LogLevel, LogStream};

/// Random bytes of one call.
const RANDOM_BYTES: u64 = 64 * 1024;

/// Links every interface of WASI 0.2 but HTTP.
pub(crate) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)
}

impl WasiView for Host {
    // Called once for each call of a WASI function. It cannot fail, so too
    // many calls are found out by the next tick, or at the end.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.host_calls = self.host_calls.saturating_add(1);
        // Made when first asked for: seeding its random numbers costs more
        // than everything else in a small node, and many ask for nothing.
        let logs = &self.logs;
        let ctx = self.wasi.get_or_insert_with(|| {
            WasiCtx::builder()
                .stdout(LogStream::new(logs, LogLevel::Info))
                .stderr(LogStream::new(logs, LogLevel::Warn))
                .max_random_size(RANDOM_BYTES)
                .allow_tcp(false)
                .allow_udp(false)
                .allow_ip_name_lookup(false)
                .build()
        });
        WasiCtxView { ctx, table: &mut self.table }
    }
}
