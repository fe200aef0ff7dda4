//! WASI without access to the system: no environment, arguments, files or sockets.
//! Programs of the standard libraries of Rust and Python always import it, so it is
//! linked. Only clocks, random numbers and the output streams work.

use exosphere_domain::limits::{Limit, Limits};
use wasmtime_wasi::WasiCtx;

use super::log::{LogLevel, LogStream, SharedLogs};

/// The WASI context of one guest.
pub(crate) struct Wasi {
    logs: SharedLogs,
    random_bytes: u64,
    // Made on the first use: seeding its random numbers costs more than everything
    // else in a small node, and many nodes never need them.
    ctx: Option<WasiCtx>,
}

impl Wasi {
    pub(crate) fn new(limits: &Limits, logs: &SharedLogs) -> Wasi {
        Wasi { logs: logs.clone(), random_bytes: limits.get(Limit::RandomBytes), ctx: None }
    }

    /// Returns the context that the engine's functions work on.
    pub(super) fn ctx(&mut self) -> &mut WasiCtx {
        let Wasi { logs, random_bytes, ctx } = self;
        ctx.get_or_insert_with(|| {
            WasiCtx::builder()
                .stdout(LogStream::new(logs, LogLevel::Info))
                .stderr(LogStream::new(logs, LogLevel::Warn))
                .max_random_size(*random_bytes)
                .allow_tcp(false)
                .allow_udp(false)
                .allow_ip_name_lookup(false)
                .build()
        })
    }
}
