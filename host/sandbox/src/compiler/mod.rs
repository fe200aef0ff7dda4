//! Compiles uploads in a separate process, which can be killed: an untrusted upload can make a
//! compiler use any amount of time and memory, or break it.
//!
//! This is the host's side: it starts the process, exchanges the messages and enforces the
//! wall-clock limit. The `supervisor` ensures that the process ends. `process` is the other side,
//! which confines itself (`confinement`) before it reads the upload. `protocol` defines the
//! messages between the two.
//!
//! The host runs the code that the process returns. If an upload takes over the process through
//! a compiler bug, it could return code of its own making. The confinement keeps everything
//! else from it: files, the network, other processes, time, memory.

mod supervisor;
mod confinement;
mod protocol;
mod process;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Once;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use crate::admission::error::{AdmissionError, CompileLimit};
use crate::artifact::Artifact;
use crate::sanitize::{clean_lines, cut};

pub use confinement::{Confinement, ConfinementError, confine};
pub use process::main;

use protocol::Verdict;
use supervisor::{ExitCause, SupervisedChild};

/// The limits of admission, which the operator sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Bytes of one upload.
    pub upload_bytes: u64,
    /// CPU time of one compilation, in seconds.
    pub compile_cpu_s: u64,
    /// Bytes of address space of one compilation.
    pub compile_memory_bytes: u64,
    /// Wall-clock time of one compilation, in seconds.
    pub compile_wall_s: u64,
    /// Bytes of the compiled code of one plugin.
    pub code_bytes: u64,
}

const MIB: u64 = 1024 * 1024;

impl Default for AdmissionLimits {
    fn default() -> Self {
        AdmissionLimits {
            upload_bytes: 32 * MIB,
            compile_cpu_s: 60,
            compile_memory_bytes: 4096 * MIB,
            compile_wall_s: 120,
            code_bytes: 512 * MIB,
        }
    }
}

/// The compiler program and its limits.
#[derive(Debug, Clone)]
pub struct Compiler {
    /// The path of the program.
    pub program: PathBuf,
    /// The program's arguments; those of [`Confinement`] follow them.
    pub arguments: Vec<OsString>,
    /// The limits of admission.
    pub limits: AdmissionLimits,
}

impl Compiler {
    /// Returns the running program as compiler, called by `exosphere compile`.
    pub fn from_current_exe(limits: AdmissionLimits) -> Compiler {
        // On Linux this names the very file that runs, even if an upgrade has replaced
        // it.
        let running = || std::env::current_exe().unwrap_or_else(|_| "exosphere".into());
        let program =
            if cfg!(target_os = "linux") { PathBuf::from("/proc/self/exe") } else { running() };
        Compiler { program, arguments: vec!["compile".into()], limits }
    }

    /// Compiles a component. Dropping the future ends the process. A compilation that
    /// was killed from outside is tried again, since the kill says nothing about the
    /// upload.
    pub(crate) async fn compile(&self, bytes: &[u8]) -> Result<Artifact, AdmissionError> {
        for _ in 1..MAX_TRIES {
            match self.try_compile(bytes).await {
                Err(AdmissionError::Killed { .. }) => {}
                ended => return ended,
            }
        }
        self.try_compile(bytes).await
    }

    async fn try_compile(&self, bytes: &[u8]) -> Result<Artifact, AdmissionError> {
        let (child, mut pipes) = self.start().map_err(|error| {
            tracing::error!(program = %self.program.display(), %error, "the compiler does not start");
            internal("the compiler does not start")
        })?;
        let wall = Duration::from_secs(self.limits.compile_wall_s);
        let exchanged =
            tokio::time::timeout(wall, pipes.exchange(bytes, self.max_output_bytes())).await;
        let Ok(output) = exchanged else {
            child.kill().await;
            return Err(self.too_costly(CompileLimit::Wall));
        };
        if output.stdout.len() as u64 > self.max_output_bytes() {
            child.kill().await;
            return Err(self.too_costly(CompileLimit::Code));
        }
        // The process has closed its output; it is given a bounded time to end.
        let ended = tokio::time::timeout(EXIT_TIMEOUT, child.ended()).await;
        // The process's input stayed open until here: its end would have told the
        // process that the host is gone.
        drop(pipes);
        match ended {
            Ok(ended) => self.interpret(ended, output),
            Err(_) => Err(internal("the compiler does not end")),
        }
    }

    fn start(&self) -> std::io::Result<(SupervisedChild, Pipes)> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .args(self.confinement().arguments())
            .env_clear()
            .env(THREADS_VARIABLE, threads().to_string())
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pipes = Pipes {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        };
        Ok((SupervisedChild::new(child), pipes))
    }

    fn confinement(&self) -> Confinement {
        Confinement {
            cpu_s: self.limits.compile_cpu_s,
            memory_bytes: self.limits.compile_memory_bytes,
        }
    }

    /// Returns the maximum bytes of an answer: the code, and the answer's head.
    fn max_output_bytes(&self) -> u64 {
        self.limits.code_bytes.saturating_add(protocol::HEAD_BYTES)
    }

    fn too_costly(&self, limit: CompileLimit) -> AdmissionError {
        let value = match limit {
            CompileLimit::Cpu => self.limits.compile_cpu_s,
            CompileLimit::Memory => self.limits.compile_memory_bytes,
            CompileLimit::Wall => self.limits.compile_wall_s,
            CompileLimit::Code => self.limits.code_bytes,
        };
        AdmissionError::TooCostly { limit, value }
    }

    /// Returns the artifact or the refusal for the process's end and its answer.
    fn interpret(
        &self,
        ended: ExitCause,
        output: ProcessOutput,
    ) -> Result<Artifact, AdmissionError> {
        let message = clean_lines(&String::from_utf8_lossy(&output.stderr));
        match ended {
            ExitCause::Success => {}
            ExitCause::CpuTime => return Err(self.too_costly(CompileLimit::Cpu)),
            // Only the message of Rust's allocator tells this abort from other aborts.
            ExitCause::Abort if message.contains("memory allocation of") => {
                return Err(self.too_costly(CompileLimit::Memory));
            }
            ExitCause::Killed => {
                // Exhausted CPU time sends an earlier signal, and exhausted memory is an error.
                // So none of the limits killed this process.
                tracing::warn!("a compilation was killed: the system may be short of memory");
                return Err(AdmissionError::Killed { times: MAX_TRIES });
            }
            ExitCause::Abort | ExitCause::Other(_) => {
                tracing::warn!(?ended, stderr = message, "the compiler crashed on an upload");
                let cause = message.lines().next().filter(|line| !line.is_empty());
                let cause = cut(cause.unwrap_or("it ended early"), 512).to_owned();
                return Err(AdmissionError::Uncompilable { cause });
            }
        }
        let Some(answer) = protocol::CompilerAnswer::parse(output.stdout) else {
            tracing::error!(stderr = message, "the compiler's answer cannot be read");
            return Err(internal("the compiler's answer cannot be read"));
        };
        if let Some(cause) = answer.unfiltered {
            static LOGGED_ONCE: Once = Once::new();
            LOGGED_ONCE.call_once(|| {
                tracing::warn!(cause, "compilations run without a filter of system calls")
            });
        }
        match answer.verdict {
            Verdict::Compiled => Ok(answer.artifact),
            Verdict::OutOfMemory => Err(self.too_costly(CompileLimit::Memory)),
            Verdict::Refused(refused) => Err(refused),
        }
    }
}

/// The maximum number of tries of a compilation that is killed from outside.
const MAX_TRIES: u32 = 2;

/// The environment variable that sets the number of threads of the engine's pool.
const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";

/// Returns the number of threads of one compilation. Each thread reserves address
/// space, which is limited, and takes a processor from the running nodes.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}

/// The time that the process may take to end after it has closed its output.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum bytes of the process's standard error that are kept.
const MAX_STDERR_BYTES: u64 = 16 * 1024;

fn internal(cause: &str) -> AdmissionError {
    AdmissionError::Internal { cause: cause.to_owned() }
}

/// The host's ends of the process's pipes.
struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

/// The output of a process.
struct ProcessOutput {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Pipes {
    /// Sends the upload, and reads until the process has closed its output. Keeps at
    /// most one byte more than `max_bytes`.
    async fn exchange(&mut self, bytes: &[u8], max_bytes: u64) -> ProcessOutput {
        let Pipes { stdin, stdout, stderr } = self;
        let write = async {
            if let Some(pipe) = stdin {
                // If the process does not read its input, its exit status shows why.
                let _ = pipe.write_all(&protocol::length(bytes)).await;
                let _ = pipe.write_all(bytes).await;
                let _ = pipe.flush().await;
            }
        };
        let answer = read(stdout.take(), max_bytes.saturating_add(1), Excess::Close);
        let message = read(stderr.take(), MAX_STDERR_BYTES, Excess::Discard);
        let ((), stdout, stderr) = tokio::join!(write, answer, message);
        ProcessOutput { stdout, stderr }
    }
}

/// The treatment of a pipe with more bytes than are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Excess {
    /// Close the pipe, which ends the process.
    Close,
    /// Read on, and drop the bytes.
    Discard,
}

/// Reads up to `max_bytes` bytes of a pipe.
async fn read<R: AsyncRead + Unpin>(pipe: Option<R>, max_bytes: u64, excess: Excess) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = (&mut pipe).take(max_bytes).read_to_end(&mut bytes).await;
        if excess == Excess::Discard {
            let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
        }
    }
    bytes
}
