//! The demo's own host: starts it, waits for its address, and always stops it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command;

/// The line of the host's output that says it is ready, up to its address.
const READY_PREFIX: &str = "exosphere is listening on ";
/// Timeout for the start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout for the shutdown.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// The number of log lines that an error shows.
const SHOWN_LOG_LINES: usize = 20;

/// A running host.
pub struct Host {
    child: Child,
    log: PathBuf,
    pub data: PathBuf,
    pub url: String,
}

impl Host {
    /// Starts a host on a free port, with its data in `folder`.
    pub fn start(exosphere: &Path, folder: &Path) -> Result<Self> {
        let log = folder.join("host.log");
        let mut serve = Command::new(exosphere);
        let data = folder.join("data");
        serve.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
        serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = serve.spawn().with_context(|| format!("`{}`", command::line(&serve)))?;
        let stdout = child.stdout.take().context("no pipe")?;
        // From here on, an error drops the host, which stops it.
        let mut host = Host { child, log, data, url: String::new() };
        host.url = host.wait_until_ready(stdout)?;
        Ok(host)
    }

    fn wait_until_ready(&self, stdout: impl Read + Send + 'static) -> Result<String> {
        let (ready, address) = mpsc::channel();
        // Reads to the end, so that the host never blocks on a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix(READY_PREFIX) {
                    // The receiver is gone if the start timed out.
                    let _ = ready.send(address.trim().to_owned());
                }
            }
        });
        address.recv_timeout(START_TIMEOUT).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                self.error_with_log("the host is not ready after a minute")
            }
            RecvTimeoutError::Disconnected => {
                self.error_with_log("the host ended before it was ready")
            }
        })
    }

    /// Returns an error with the last lines of the host's log.
    pub fn error_with_log(&self, event: &str) -> anyhow::Error {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..];
        match last {
            [] => anyhow::anyhow!("{event}; it logged nothing"),
            last => anyhow::anyhow!("{event}; the end of its log:\n  {}", last.join("\n  ")),
        }
    }

    /// Stops the host as an operator would, and waits for its end.
    pub fn stop(mut self) -> Result<()> {
        let id = self.child.id().to_string();
        command::run(Command::new("kill").args(["-s", "TERM", &id]))?;
        let start = Instant::now();
        while start.elapsed() < STOP_TIMEOUT {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(self.error_with_log(&format!("the host ended with {status}")));
                }
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
        bail!(self.error_with_log("the host did not stop after a SIGTERM"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The host has stopped already, or an earlier error skipped the stop.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
