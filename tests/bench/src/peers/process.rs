//! A process of a peer, which ends with its owner, and the ports for it.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use exosphere_tests::tail;

/// A process that is killed when it is dropped. Its standard input is open until then, or until the
/// benchmark itself ends in any way.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a process, with its output in a file.
    pub fn start(command: &mut Command, log: &Path) -> Result<Process> {
        let file = File::create(log)?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot run {name}"))?;
        Ok(Process { child, log: log.to_owned() })
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns an error if the process has ended.
    pub fn ensure_it_runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it ended ({status}):\n{}", self.tail());
        }
        Ok(())
    }

    /// Waits for the process to end, which must be a success, and returns its last line.
    pub fn last_line(mut self, patience: Duration) -> Result<String> {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "it ended ({status}):\n{}", self.tail());
                return Ok(tail(&self.log, 1, |_| true));
            }
            ensure!(Instant::now() < end, "it never ended:\n{}", self.tail());
            // Seldom, since polling shares the processors with the measured subject.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns the end of the process's output.
    pub fn tail(&self) -> String {
        tail(&self.log, 20, |_| true)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns free ports, all different.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        // Each port stays bound until all are known.
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
