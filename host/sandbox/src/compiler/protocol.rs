//! The protocol between the host and the compiling process: the upload one way, an
//! answer the other. A length precedes each part, so that neither side has to close its
//! pipe.

use exosphere_domain::json::{Typed, from_bytes};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

use crate::admission::error::AdmissionError;
use crate::artifact::Artifact;

/// Bytes of an answer besides the code.
pub(super) const HEAD_BYTES: u64 = 4 * 1024 * 1024;

/// Returns the length that precedes an upload.
pub(super) fn length(bytes: &[u8]) -> [u8; 8] {
    (bytes.len() as u64).to_le_bytes()
}

/// Reads a message that [`length`] precedes.
pub(super) fn read(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// The result of a compilation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Verdict {
    /// The component was compiled.
    Compiled,
    /// The process ran out of memory.
    OutOfMemory,
    /// The upload was refused.
    Refused(AdmissionError),
}

/// The head of an answer, which precedes the artifact.
#[derive(Serialize, Deserialize)]
struct Head {
    verdict: Verdict,
    unfiltered: Option<String>,
}

impl Typed for Head {}

/// An answer of the compiling process.
pub(super) struct CompilerAnswer {
    pub(super) verdict: Verdict,
    /// The reason why the process has no filter of system calls, if it has none.
    pub(super) unfiltered: Option<String>,
    /// The artifact; empty without compiled code.
    pub(super) artifact: Artifact,
}

impl CompilerAnswer {
    /// Writes the answer to the host.
    pub(super) fn write(self, to: &mut impl Write) -> io::Result<()> {
        let head = Head { verdict: self.verdict, unfiltered: self.unfiltered };
        let head = serde_json::to_vec(&head)?;
        to.write_all(&length(&head))?;
        to.write_all(&head)?;
        to.write_all(self.artifact.bytes())?;
        to.flush()
    }

    /// Parses an answer; `None` if the bytes are not a valid one.
    pub(super) fn parse(output: Vec<u8>) -> Option<CompilerAnswer> {
        let (length, rest) = output.split_at_checked(8)?;
        let length = u64::from_le_bytes(length.try_into().ok()?);
        let (head, _) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let Head { verdict, unfiltered } = from_bytes(head).ok()?;
        let artifact = Artifact::from_pipe(output, 8 + usize::try_from(length).ok()?)?;
        Some(CompilerAnswer { verdict, unfiltered, artifact })
    }
}
