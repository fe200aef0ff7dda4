//! The folder that is a host's alone: its lock, its key, where things lie in
//! it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use exosphere_store::Vault;
use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use sha2::Sha256;
use uuid::Uuid;

use crate::error::StartError;

/// A data folder, locked for as long as this lives.
pub(crate) struct DataFolder {
    folder: PathBuf,
    key: [u8; 32],
    host: String,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is not there, and takes it.
    ///
    /// Its key lies in it, unless it is in a file elsewhere, which several hosts
    /// may share.
    pub(crate) fn take(folder: &Path, key: Option<&Path>) -> Result<Self, StartError> {
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
        let file = key.map_or_else(|| folder.join("host.key"), Path::to_owned);
        let unusable = |error| StartError::KeyFile { file: file.display().to_string(), error };
        let key = read_key(&file)
            .or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => make_key(&file),
                _ => Err(error),
            })
            .map_err(unusable)?;
        let key = key.ok_or_else(|| StartError::Key(file.display().to_string()))?;
        let host = host_id(&folder.join("host.id")).map_err(cannot)?;
        Ok(DataFolder { folder: folder.to_owned(), key, host, _lock: lock })
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

    /// What seals secrets.
    pub(crate) fn vault(&self) -> Vault {
        Vault::new(&self.derive("exosphere secrets"))
    }

    /// What authenticates compiled code.
    pub(crate) fn cache_key(&self) -> [u8; 32] {
        self.derive("exosphere code cache")
    }

    /// A key of its own for each use: HMAC-SHA-256 of the use's name.
    fn derive(&self, label: &str) -> [u8; 32] {
        // A key of any length will do for HMAC.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return self.key };
        mac.update(label.as_bytes());
        mac.finalize().into_bytes().into()
    }
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

/// The key in a file; nothing if the file holds no key. Whoever else can read
/// it is shut out.
fn read_key(file: &Path) -> io::Result<Option<[u8; 32]>> {
    let mut bytes = Vec::new();
    let mut open = File::open(file)?;
    Read::by_ref(&mut open).take(64).read_to_end(&mut bytes)?;
    if open.metadata()?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "the key file was open to others; it is 0600 now");
        open.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(bytes.try_into().ok())
}

#[expect(clippy::disallowed_methods, reason = "a key must not be foreseen, not even by a test")]
fn make_key(file: &Path) -> io::Result<Option<[u8; 32]>> {
    let mut key = [0; 32];
    rand::rng().fill_bytes(&mut key);
    // Written whole before it has its name: hosts that share it may start at
    // once, and the first one's counts.
    let draft = file.with_extension(crate::ambient::random_id().to_string());
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let named = new
        .write_all(&key)
        .and_then(|()| new.sync_all())
        .and_then(|()| std::fs::hard_link(&draft, file));
    std::fs::remove_file(&draft)?;
    match named {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_key(file),
        named => named.map(|()| Some(key)),
    }
}
