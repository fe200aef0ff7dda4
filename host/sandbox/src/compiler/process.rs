//! The compiling process: confines itself, reads one upload, and answers with code or a
//! refusal.
//!
//! Only the answer reaches the host.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use super::confinement::{Confinement, ConfinementError, confine};
use super::protocol::{self, CompilerAnswer, Verdict};
use crate::admission::error::{AdmissionError, invalid};
use crate::admission::inspect::inspect;
use crate::artifact::Artifact;
use crate::engine;

/// Runs the compiling process from start to end. The arguments are those of
/// [`Confinement::arguments`].
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(confinement) = Confinement::parse(arguments) else {
        report("this command is for the host's own use");
        return ExitCode::from(2);
    };
    let unfiltered = match confine(&confinement) {
        Ok(()) => None,
        Err(ConfinementError::NoFilter(cause)) => Some(cause),
        Err(ConfinementError::NoLimits(cause)) => {
            report(&format!("the process cannot limit itself: {cause}"));
            return ExitCode::FAILURE;
        }
    };
    match serve(unfiltered) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Writes a message to standard error, if the host still reads it.
fn report(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

fn serve(unfiltered: Option<String>) -> io::Result<()> {
    let bytes = protocol::read(&mut io::stdin().lock())?;
    std::thread::Builder::new().spawn(exit_with_host)?;
    // A panic of the compiler is a bug that the upload has found.
    let compiled = catch_unwind(AssertUnwindSafe(|| compile(&bytes)));
    let (verdict, artifact) = match compiled {
        Ok(Ok(artifact)) => (Verdict::Compiled, artifact),
        Ok(Err(verdict)) => (verdict, Artifact::empty()),
        Err(_) => {
            let cause = "it panicked".to_owned();
            (Verdict::Refused(AdmissionError::Uncompilable { cause }), Artifact::empty())
        }
    };
    CompilerAnswer { verdict, unfiltered, artifact }.write(&mut io::stdout().lock())
}

/// Exits when the host is gone. The host keeps this process's input open while it
/// waits, so the end of the input means that no host waits for an answer.
fn exit_with_host() {
    let _ = io::stdin().lock().read(&mut [0]);
    std::process::exit(1);
}

fn compile(bytes: &[u8]) -> Result<Artifact, Verdict> {
    let summary = inspect(bytes).map_err(Verdict::Refused)?;
    let engine = engine::for_compiling().map_err(|error| failed_verdict(&error))?;
    let code = engine.precompile_component(bytes).map_err(|error| failed_verdict(&error))?;
    let artifact = Artifact::from_code(&summary, &code);
    artifact
        .map_err(|error| Verdict::Refused(AdmissionError::Internal { cause: error.to_string() }))
}

/// Returns the verdict of a failed compilation. The inspection has found the component
/// valid, so the failure is beyond the engine's capacity.
fn failed_verdict(error: &wasmtime::Error) -> Verdict {
    let is_memory = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.kind() == io::ErrorKind::OutOfMemory)
    };
    if error.chain().any(is_memory) {
        Verdict::OutOfMemory
    } else {
        Verdict::Refused(invalid(error))
    }
}
