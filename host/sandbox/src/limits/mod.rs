//! The limits that a running guest meets: memory and tables (`memory`), CPU time
//! (`cpu_meter`, which the `epoch_ticker` interrupts), and a signal for limits that are
//! reached beside the guest (`signal`).
//!
//! Not here: the values of the limits, which the domain has.

pub(crate) mod cpu_meter;
pub(crate) mod epoch_ticker;
pub(crate) mod memory;
pub(crate) mod signal;
