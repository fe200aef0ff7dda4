//! The supervisor of a compiling process, in the host: ensures that the process ends and is
//! reaped, even if the task or the runtime that started it is gone.
//!
//! Not here: the compiling process itself (`process`).

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExitCause {
    /// The process exited successfully.
    Success,
    /// The process used up its CPU time.
    CpuTime,
    /// The process aborted.
    Abort,
    /// The process was killed from outside.
    Killed,
    /// The process ended in another way.
    Other(ExitStatus),
}

/// A child process under supervision: it is killed when this is dropped.
pub(super) struct SupervisedChild {
    /// The order to kill: sent by a message or by dropping the sender.
    kill: Option<oneshot::Sender<()>>,
    supervisor: JoinHandle<ExitCause>,
}

impl SupervisedChild {
    /// Begins to supervise a process that leads its own group.
    pub(super) fn new(child: Child) -> SupervisedChild {
        let (kill, killed) = oneshot::channel();
        // A separate task continues when the future that compiles is dropped, and
        // leaves no zombie. If the whole runtime is dropped, it kills the process, and
        // the system reaps the process after the host's end.
        let supervisor = tokio::spawn(supervise(child, killed));
        SupervisedChild { kill: Some(kill), supervisor }
    }

    /// Waits for the end of the process.
    pub(super) async fn ended(mut self) -> ExitCause {
        let ended = (&mut self.supervisor).await;
        // The supervisor task neither panics nor is cancelled before the runtime is.
        ended.unwrap_or(ExitCause::Killed)
    }

    /// Kills the process and waits for its end.
    pub(super) async fn kill(mut self) {
        self.kill.take();
        self.ended().await;
    }
}

async fn supervise(mut child: Child, killed: oneshot::Receiver<()>) -> ExitCause {
    // The process id is not reused until the process has been waited for.
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let status = tokio::select! {
        status = child.wait() => status,
        _ = killed => {
            if let Some(group) = group {
                // This fails only if the process has just ended.
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait().await
        }
    };
    status.map_or(ExitCause::Killed, exit_cause)
}

fn exit_cause(status: ExitStatus) -> ExitCause {
    match status.signal().and_then(Signal::from_named_raw) {
        None if status.success() => ExitCause::Success,
        Some(Signal::XCPU) => ExitCause::CpuTime,
        Some(Signal::ABORT) => ExitCause::Abort,
        Some(Signal::KILL) => ExitCause::Killed,
        _ => ExitCause::Other(status),
    }
}
