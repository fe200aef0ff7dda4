//! The folder that is a host's alone: its lock, its keys, where things lie in
//! it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use exosphere_store::{KEY_BYTES, Vault};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::error::StartError;
use crate::key_file;
use crate::keys::Keys;

/// A data folder, locked for as long as this lives.
pub(crate) struct DataFolder {
    folder: PathBuf,
    code_key: Zeroizing<[u8; KEY_BYTES]>,
    host: String,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is not there, and takes it. Gives what seals
    /// secrets, too, whose keys lie in the folder unless they are elsewhere.
    pub(crate) fn take(folder: &Path, keys: &Keys) -> Result<(Self, Vault), StartError> {
        let cannot = |error| StartError::Folder { folder: folder.display().to_string(), error };
        // Inputs and outputs are nobody else's business.
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
        let lock = File::create(folder.join("lock")).map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StartError::InUse(folder.display().to_string()));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let vault = keys.vault(folder, key_file::read_or_make)?;
        let code_key = code_key(folder)?;
        let host = host_id(&folder.join("host.id")).map_err(cannot)?;
        let folder = folder.to_owned();
        Ok((DataFolder { folder, code_key, host, _lock: lock }, vault))
    }

    /// What the hosts of this folder are known by, one after the other: at most
    /// one of them lives, since it has the lock.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn database(&self) -> PathBuf {
        database_in(&self.folder)
    }

    pub(crate) fn code_cache(&self) -> PathBuf {
        self.folder.join("code")
    }

    /// What authenticates compiled code. It is this folder's own: hosts that
    /// share the keys of secrets do not vouch for each other's code, and a
    /// rotation of those keys throws none away.
    pub(crate) fn cache_key(&self) -> [u8; KEY_BYTES] {
        *self.code_key
    }
}

fn code_key(folder: &Path) -> Result<Zeroizing<[u8; KEY_BYTES]>, StartError> {
    let bytes = key_file::read_or_make(&folder.join("code.key"))?.newest().to_bytes();
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    key.copy_from_slice(&bytes);
    Ok(key)
}

/// The database of a data folder, whoever has the folder.
pub(crate) fn database_in(folder: &Path) -> PathBuf {
    folder.join("exosphere.db")
}

/// The id in a file; a fresh one if the file is not there or holds none.
fn host_id(file: &Path) -> io::Result<String> {
    let known = std::fs::read_to_string(file).ok().and_then(|id| id.trim().parse::<Uuid>().ok());
    if let Some(id) = known {
        return Ok(id.to_string());
    }
    let id = crate::ambient::random_id().to_string();
    std::fs::write(file, &id)?;
    Ok(id)
}
