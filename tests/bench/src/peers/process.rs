//! A process of a peer, which ends with whoever holds it, and the ports for it.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use exosphere_tests::tail;

/// A process that is killed when it is dropped. Its standard input is open until
/// then, and until our own end however that comes about.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it, with all that it says in a file.
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

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error if it has ended.
    pub fn ensure_it_runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it ended ({status}):\n{}", self.tail());
        }
        Ok(())
    }

    /// Waits for its end, which must be a good one; gives the last line that it said.
    pub fn last_line(mut self, patience: Duration) -> Result<String> {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "it ended ({status}):\n{}", self.tail());
                return Ok(tail(&self.log, 1, |_| true));
            }
            ensure!(Instant::now() < end, "it never ended:\n{}", self.tail());
            // Seldom, since it shares the processors with what is measured.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The end of what it said.
    pub fn tail(&self) -> String {
        tail(&self.log, 20, |_| true)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports that nobody has, all different.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        // All are held until all are known.
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
