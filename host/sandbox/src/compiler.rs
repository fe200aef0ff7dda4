//! Compiles uploads in a process of its own, which can be killed: what comes
//! from strangers can make a compiler use any amount of time and memory, or
//! break it.
//!
//! This is the host's side: it starts the process, speaks to it, holds it to
//! the wall's clock and sees to it that it ends. `main` is the other side,
//! which locks itself in (`jail`) before it reads the upload; `wire` is what
//! goes between the two.
//!
//! What it answers is run. A bug of the compiler by which an upload takes over
//! that process could hand us code of its own making; what the locks keep from
//! it is everything else: files, the network, other processes, time, memory.

mod jail;
mod leash;
mod main;
mod wire;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Once;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use crate::artifact::Artifact;
use crate::refused::{CompileLimit, Refused};
use crate::text::{clean_lines, cut};

pub use jail::{Confinement, Gap, confine};
pub use main::main;

use leash::{Ended, Leash};
use wire::Verdict;

/// What admission may take: the operator's to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Bytes of one upload.
    pub upload_bytes: u64,
    /// Seconds of CPU time of one compilation.
    pub compile_cpu_s: u64,
    /// Bytes of address space of one compilation.
    pub compile_memory_bytes: u64,
    /// Seconds of one compilation by the clock on the wall.
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

/// Which program compiles, and what it may take.
#[derive(Debug, Clone)]
pub struct Compiler {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; those of [`Confinement`] follow them.
    pub arguments: Vec<OsString>,
    /// What a compilation may take.
    pub limits: AdmissionLimits,
}

impl Compiler {
    /// The program that is running, called by `exosphere compile`.
    pub fn own(limits: AdmissionLimits) -> Compiler {
        // On Linux this names the very file that runs, even if an upgrade has
        // put another in its place.
        let running = || std::env::current_exe().unwrap_or_else(|_| "exosphere".into());
        let program =
            if cfg!(target_os = "linux") { PathBuf::from("/proc/self/exe") } else { running() };
        Compiler { program, arguments: vec!["compile".into()], limits }
    }

    /// Compiles a component. Dropping the future ends the process. One that was
    /// killed from outside is tried again: that tells nothing of the upload.
    pub(crate) async fn compile(&self, bytes: &[u8]) -> Result<Artifact, Refused> {
        for _ in 1..TRIES {
            match self.try_compile(bytes).await {
                Err(Refused::Killed { .. }) => {}
                judged => return judged,
            }
        }
        self.try_compile(bytes).await
    }

    async fn try_compile(&self, bytes: &[u8]) -> Result<Artifact, Refused> {
        let (leash, mut pipes) = self.start().map_err(|error| {
            tracing::error!(program = %self.program.display(), %error, "the compiler does not start");
            internal("the compiler does not start")
        })?;
        let wall = Duration::from_secs(self.limits.compile_wall_s);
        let spoken = tokio::time::timeout(wall, pipes.speak(bytes, self.most_said())).await;
        let Ok(said) = spoken else {
            leash.kill().await;
            return Err(self.too_costly(CompileLimit::Wall));
        };
        if said.stdout.len() as u64 > self.most_said() {
            leash.kill().await;
            return Err(self.too_costly(CompileLimit::Code));
        }
        // It has closed its output; whatever it does now, it will not do long.
        let ended = tokio::time::timeout(ENDING, leash.ended()).await;
        // Its input was open until here: the end of it would have told the
        // process that we are gone.
        drop(pipes);
        match ended {
            Ok(ended) => self.judge(ended, said),
            Err(_) => Err(internal("the compiler does not end")),
        }
    }

    fn start(&self) -> std::io::Result<(Leash, Pipes)> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .args(self.confinement().arguments())
            .env_clear()
            .env(THREADS, threads().to_string())
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
        Ok((Leash::new(child), pipes))
    }

    fn confinement(&self) -> Confinement {
        Confinement {
            cpu_s: self.limits.compile_cpu_s,
            memory_bytes: self.limits.compile_memory_bytes,
        }
    }

    /// Bytes that the process may say: the code, and what it says of it.
    fn most_said(&self) -> u64 {
        self.limits.code_bytes.saturating_add(wire::HEAD_BYTES)
    }

    fn too_costly(&self, limit: CompileLimit) -> Refused {
        let value = match limit {
            CompileLimit::Cpu => self.limits.compile_cpu_s,
            CompileLimit::Memory => self.limits.compile_memory_bytes,
            CompileLimit::Wall => self.limits.compile_wall_s,
            CompileLimit::Code => self.limits.code_bytes,
        };
        Refused::TooCostly { limit, value }
    }

    /// What the process meant.
    fn judge(&self, ended: Ended, said: Said) -> Result<Artifact, Refused> {
        let words = clean_lines(&String::from_utf8_lossy(&said.stderr));
        match ended {
            Ended::Well => {}
            Ended::CpuTime => return Err(self.too_costly(CompileLimit::Cpu)),
            // The words of Rust's allocator: nothing else tells this end from
            // others.
            Ended::Abort if words.contains("memory allocation of") => {
                return Err(self.too_costly(CompileLimit::Memory));
            }
            Ended::Killed => {
                // The end of its CPU time is a signal of its own, which comes first,
                // and its memory ends in an error: so this was none of its limits.
                tracing::warn!("a compilation was killed: the system may be short of memory");
                return Err(Refused::Killed { times: TRIES });
            }
            Ended::Abort | Ended::Badly(_) => {
                tracing::warn!(?ended, said = words, "the compiler broke on an upload");
                let why = words.lines().next().filter(|line| !line.is_empty());
                let why = cut(why.unwrap_or("it ended early"), 512).to_owned();
                return Err(Refused::Uncompilable { why });
            }
        }
        let Some(answer) = wire::Answer::read(said.stdout) else {
            tracing::error!(said = words, "the compiler's answer makes no sense");
            return Err(internal("the compiler's answer makes no sense"));
        };
        if let Some(why) = answer.unfiltered {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                tracing::warn!(why, "compilations run without a filter of system calls")
            });
        }
        match answer.verdict {
            Verdict::Compiled => Ok(answer.artifact),
            Verdict::OutOfMemory => Err(self.too_costly(CompileLimit::Memory)),
            Verdict::Refused(refused) => Err(refused),
        }
    }
}

/// How often a compilation is tried that is killed from outside.
const TRIES: u32 = 2;

/// What tells the engine's pool how many threads to have.
const THREADS: &str = "RAYON_NUM_THREADS";

/// Threads of one compilation. Each reserves address space, which is limited,
/// and takes a processor from those who run nodes.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}

/// How long the process may take to end after its last word.
const ENDING: Duration = Duration::from_secs(10);

/// Bytes of its words for people that are kept.
const STDERR_BYTES: u64 = 16 * 1024;

fn internal(why: &str) -> Refused {
    Refused::Internal { why: why.to_owned() }
}

/// Our ends of its pipes.
struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

/// What a process said.
struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Pipes {
    /// Hands it the upload, and listens until it has closed its output. At
    /// most one byte more than `most` is kept.
    async fn speak(&mut self, bytes: &[u8], most: u64) -> Said {
        let Pipes { stdin, stdout, stderr } = self;
        let write = async {
            if let Some(pipe) = stdin {
                // That it does not listen shows in how it ends.
                let _ = pipe.write_all(&wire::length(bytes)).await;
                let _ = pipe.write_all(bytes).await;
                let _ = pipe.flush().await;
            }
        };
        let said = read(stdout.take(), most.saturating_add(1), false);
        let words = read(stderr.take(), STDERR_BYTES, true);
        let ((), stdout, stderr) = tokio::join!(write, said, words);
        Said { stdout, stderr }
    }
}

/// Up to `most` bytes of a pipe. After them it is closed, at which the process
/// ends, or what is more is read and dropped.
async fn read<R: AsyncRead + Unpin>(pipe: Option<R>, most: u64, drain: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = (&mut pipe).take(most).read_to_end(&mut bytes).await;
        if drain {
            let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
        }
    }
    bytes
}
