//! Which states are being executed at this moment, noted where a crash leaves
//! it to be read: one number for each slot, in a file of the data folder.
//!
//! A state that a host merely held when it died cannot have killed it; one that
//! was running may have. The file is not synced: it has to survive the process,
//! not the machine, and after a loss of power nobody is to blame.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use exosphere_domain::ids::StateId;

/// Bytes of a slot's number; 0 for an empty slot.
const WIDTH: usize = 8;

/// The noted states.
pub(crate) struct Begun {
    file: File,
    free: Mutex<Vec<u32>>,
    before: HashSet<StateId>,
}

/// Keeps a state noted for as long as it lives.
pub(crate) struct Note<'a> {
    begun: &'a Begun,
    slot: Option<u32>,
}

impl Begun {
    /// Reads what the host before this one noted, and begins anew.
    pub(crate) fn open(path: &Path, slots: u32) -> std::io::Result<Self> {
        let before = match std::fs::read(path) {
            Ok(bytes) => bytes.chunks_exact(WIDTH).filter_map(number).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => HashSet::new(),
            Err(error) => return Err(error),
        };
        let file = File::create(path)?;
        Ok(Begun { file, free: Mutex::new((0..slots).collect()), before })
    }

    /// Whether the host before this one was executing a state when it ended.
    pub(crate) fn was_running(&self, state: StateId) -> bool {
        self.before.contains(&state)
    }

    /// Notes a state that begins now.
    pub(crate) fn note(&self, state: StateId) -> Note<'_> {
        let slot = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(slot) = slot {
            self.write(slot, state.0);
        }
        Note { begun: self, slot }
    }

    fn write(&self, slot: u32, number: i64) {
        let at = u64::from(slot) * WIDTH as u64;
        // Without the note a crash is blamed on nobody, which is no harm.
        let _ = self.file.write_all_at(&number.to_le_bytes(), at);
    }
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.begun.write(slot, 0);
            self.begun.free.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        }
    }
}

fn number(bytes: &[u8]) -> Option<StateId> {
    let number = i64::from_le_bytes(bytes.try_into().ok()?);
    (number != 0).then_some(StateId(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("running");
        let begun = Begun::open(&path, 2).unwrap();
        let ended = begun.note(StateId(7));
        drop(ended);
        let _running = begun.note(StateId(8));
        let after = Begun::open(&path, 2).unwrap();
        assert!(after.was_running(StateId(8)) && !after.was_running(StateId(7)));
        assert!(!Begun::open(&path, 2).unwrap().was_running(StateId(8)), "it begins anew");
    }
}
