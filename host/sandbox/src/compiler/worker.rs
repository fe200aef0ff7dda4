//! The compiling process: confines itself, reads one upload, and answers with code or a
//! refusal.
//!
//! Only the answer reaches the host.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use super::confinement::{Confinement, Gap, confine};
use super::protocol::{self, Answer, Verdict};
use crate::admission::error::{Refused, invalid};
use crate::admission::inspect::inspect;
use crate::artifact::Artifact;
use crate::engine;

/// Runs the compiling process from start to end. The arguments are those of
/// [`Confinement::arguments`].
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(confinement) = Confinement::parse(arguments) else {
        tell("this command is for the host's own use");
        return ExitCode::from(2);
    };
    let unfiltered = match confine(&confinement) {
        Ok(()) => None,
        Err(Gap::NoFilter(why)) => Some(why),
        Err(Gap::NoLimits(why)) => {
            tell(&format!("the process cannot limit itself: {why}"));
            return ExitCode::FAILURE;
        }
    };
    match serve(unfiltered) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Writes a message to standard error, if the host still reads it.
fn tell(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}

fn serve(unfiltered: Option<String>) -> io::Result<()> {
    let bytes = protocol::read(&mut io::stdin().lock())?;
    std::thread::Builder::new().spawn(end_with_the_host)?;
    // A panic of the compiler is a bug that the upload has found.
    let made = catch_unwind(AssertUnwindSafe(|| make(&bytes)));
    let (verdict, artifact) = match made {
        Ok(Ok(artifact)) => (Verdict::Compiled, artifact),
        Ok(Err(verdict)) => (verdict, Artifact::none()),
        Err(_) => {
            let why = "it panicked".to_owned();
            (Verdict::Refused(Refused::Uncompilable { why }), Artifact::none())
        }
    };
    Answer { verdict, unfiltered, artifact }.write(&mut io::stdout().lock())
}

/// Exits when the host is gone. The host keeps this process's input open while it
/// waits, so the end of the input means that no host waits for an answer.
fn end_with_the_host() {
    let _ = io::stdin().lock().read(&mut [0]);
    std::process::exit(1);
}

fn make(bytes: &[u8]) -> Result<Artifact, Verdict> {
    let facts = inspect(bytes).map_err(Verdict::Refused)?;
    let engine = engine::for_compiling().map_err(|error| failed(&error))?;
    let code = engine.precompile_component(bytes).map_err(|error| failed(&error))?;
    let artifact = Artifact::compiled(&facts, &code);
    artifact.map_err(|error| Verdict::Refused(Refused::Internal { why: error.to_string() }))
}

/// Returns the verdict of a failed compilation. The inspection has found the component
/// valid, so the failure is beyond the engine's capacity.
fn failed(error: &wasmtime::Error) -> Verdict {
    let is_memory = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.kind() == io::ErrorKind::OutOfMemory)
    };
    match error.chain().any(is_memory) {
        true => Verdict::OutOfMemory,
        false => Verdict::Refused(invalid(error)),
    }
}
