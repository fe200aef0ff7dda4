//! Ensures that a child process ends and is reaped, even if the task or the runtime
//! that started it is gone.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It exited successfully.
    Well,
    /// It used up its CPU time.
    CpuTime,
    /// It aborted.
    Abort,
    /// It was killed from outside.
    Killed,
    /// It ended in another way.
    Badly(ExitStatus),
}

/// A handle of a process, which is killed when the handle is dropped.
pub(super) struct Leash {
    /// The kill order: sent by a message or by dropping the sender.
    order: Option<oneshot::Sender<()>>,
    keeper: JoinHandle<Ended>,
}

impl Leash {
    /// Takes charge of a process that leads its own group.
    pub(super) fn new(child: Child) -> Leash {
        let (order, ordered) = oneshot::channel();
        // A separate task continues when the future that compiles is dropped, and
        // leaves no zombie. If the whole runtime is dropped, it kills the process, and
        // the system reaps the process after the host's end.
        let keeper = tokio::spawn(keep(child, ordered));
        Leash { order: Some(order), keeper }
    }

    /// Waits for the end of the process.
    pub(super) async fn ended(mut self) -> Ended {
        let ended = (&mut self.keeper).await;
        // The keeper task neither panics nor is cancelled before the runtime is.
        ended.unwrap_or(Ended::Killed)
    }

    /// Kills the process and waits for its end.
    pub(super) async fn kill(mut self) {
        self.order.take();
        self.ended().await;
    }
}

async fn keep(mut child: Child, ordered: oneshot::Receiver<()>) -> Ended {
    // The process id stays its own until it is waited for.
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let status = tokio::select! {
        status = child.wait() => status,
        _ = ordered => {
            if let Some(group) = group {
                // This fails only if the process has just ended.
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
