//! Sees to it that a process that was started ends and is reaped, whatever
//! becomes of whoever started it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It said all that it had to say.
    Well,
    /// It used up its CPU time.
    CpuTime,
    /// It gave up by itself.
    Abort,
    /// Someone else killed it.
    Killed,
    /// In another way.
    Badly(ExitStatus),
}

/// A process that ends when this goes.
pub(super) struct Leash {
    /// Dropped, or said, it is the order to kill.
    order: Option<oneshot::Sender<()>>,
    keeper: JoinHandle<Ended>,
}

impl Leash {
    /// Takes a process that leads its own group.
    pub(super) fn new(child: Child) -> Leash {
        let (order, ordered) = oneshot::channel();
        // A task of its own goes on when the future that compiles is dropped,
        // and leaves no zombie behind. If the whole runtime goes, the process
        // is killed as it is dropped, and the system reaps it after us.
        let keeper = tokio::spawn(keep(child, ordered));
        Leash { order: Some(order), keeper }
    }

    /// Waits for its end.
    pub(super) async fn ended(mut self) -> Ended {
        let ended = (&mut self.keeper).await;
        // The keeper neither panics nor is it cancelled before the runtime is.
        ended.unwrap_or(Ended::Killed)
    }

    /// Ends it.
    pub(super) async fn kill(mut self) {
        self.order.take();
        self.ended().await;
    }
}

async fn keep(mut child: Child, ordered: oneshot::Receiver<()>) -> Ended {
    // Its number is its own until it is waited for.
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let status = tokio::select! {
        status = child.wait() => status,
        _ = ordered => {
            if let Some(group) = group {
                // It fails only if it has just ended.
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait().await
        }
    };
    status.map_or(Ended::Killed, ending)
}

fn ending(status: ExitStatus) -> Ended {
    match status.signal().and_then(Signal::from_named_raw) {
        None if status.success() => Ended::Well,
        Some(Signal::XCPU) => Ended::CpuTime,
        Some(Signal::ABORT) => Ended::Abort,
        Some(Signal::KILL) => Ended::Killed,
        _ => Ended::Badly(status),
    }
}
