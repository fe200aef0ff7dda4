//! What goes between the host and the process that compiles: the upload one
//! way, an answer the other. Each part is led by its length, so that neither
//! side has to close anything to be understood.

use exosphere_domain::json::{Typed, from_bytes};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

use crate::artifact::Artifact;
use crate::refused::Refused;

/// Bytes of an answer besides the code.
pub(super) const HEAD_BYTES: u64 = 4 * 1024 * 1024;

/// The length that goes before an upload.
pub(super) fn length(bytes: &[u8]) -> [u8; 8] {
    (bytes.len() as u64).to_le_bytes()
}

/// Reads what [`length`] leads.
pub(super) fn read(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == length {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// What came of a compilation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Verdict {
    /// There is code.
    Compiled,
    /// There was too little memory.
    OutOfMemory,
    /// There is none, since the upload does not fit.
    Refused(Refused),
}

/// The first part of an answer.
#[derive(Serialize, Deserialize)]
struct Head {
    verdict: Verdict,
    unfiltered: Option<String>,
}

impl Typed for Head {}

/// An answer.
pub(super) struct Answer {
    /// What came of it.
    pub(super) verdict: Verdict,
    /// Why there is no filter of system calls, if there is none.
    pub(super) unfiltered: Option<String>,
    /// What was made; empty if nothing was.
    pub(super) artifact: Artifact,
}

impl Answer {
    /// Writes it.
    pub(super) fn write(self, to: &mut impl Write) -> io::Result<()> {
        let head = Head { verdict: self.verdict, unfiltered: self.unfiltered };
        let head = serde_json::to_vec(&head)?;
        to.write_all(&length(&head))?;
        to.write_all(&head)?;
        to.write_all(self.artifact.bytes())?;
        to.flush()
    }

    /// Reads all that was said; nothing if that is no answer.
    pub(super) fn read(said: Vec<u8>) -> Option<Answer> {
        let (length, rest) = said.split_at_checked(8)?;
        let length = u64::from_le_bytes(length.try_into().ok()?);
        let (head, _) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let Head { verdict, unfiltered } = from_bytes(head).ok()?;
        let artifact = Artifact::said(said, 8 + usize::try_from(length).ok()?)?;
        Some(Answer { verdict, unfiltered, artifact })
    }
}
