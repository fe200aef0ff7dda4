//! The data folder of a host: its locks, file modes, keys and paths.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use exosphere_store::{HostIdentity, KEY_BYTES, SecretCipher};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::access::admin_key::ADMIN_KEY_FILE;
use crate::error::StartError;
use crate::keys::file as key_file;
use crate::keys::source::KeySource;

/// Permission bits of users other than the owner.
const OTHER_USERS: u32 = 0o077;

/// Maximum number of attempts to open a file that another process replaces meanwhile.
const MAX_LOCK_ATTEMPTS: u32 = 10;

/// A data folder, locked for as long as this lives.
pub(crate) struct DataFolder {
    folder: PathBuf,
    code_key: Zeroizing<[u8; KEY_BYTES]>,
    host: String,
    /// Lock files, open for as long as the database is: closing a descriptor of the
    /// database file would end SQLite's own locks on it.
    locks: Vec<File>,
}

impl DataFolder {
    /// Creates the folder if it does not exist, and locks it. Also returns the cipher of
    /// secrets, whose keys are in the folder unless they are configured elsewhere.
    ///
    /// More than one file is locked: if an operator removes `lock` while its host runs, the
    /// next host must still be refused.
    pub(crate) fn take(
        folder: &Path,
        keys: &KeySource,
    ) -> Result<(Self, SecretCipher), StartError> {
        let cannot = |error| StartError::Folder { folder: folder.display().to_string(), error };
        // Inputs and outputs are private to the user of the host.
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
        close_to_other_users(folder)?;
        let lock = |name: &str| lock_file(folder, &folder.join(name));
        let (first, mut host_file) = (lock("lock")?, lock("host.id")?);
        let host = host_id(&mut host_file).map_err(cannot)?;
        let cipher = keys.cipher(folder, key_file::read_or_create)?;
        let code_key = code_key(folder)?;
        let folder = folder.to_owned();
        Ok((DataFolder { folder, code_key, host, locks: vec![first, host_file] }, cipher))
    }

    /// Locks the database in the folder, too, so that two hosts never use it even if the other
    /// files are removed. On systems other than Linux this kind of lock would exclude SQLite's
    /// own.
    pub(crate) fn lock_database(&mut self) -> Result<(), StartError> {
        if cfg!(target_os = "linux") {
            self.locks.push(lock_file(&self.folder, &self.database())?);
        }
        Ok(())
    }

    /// Returns the identity of the folder's host under a name. At most one host of the folder
    /// runs at a time, because it holds the lock.
    pub(crate) fn identity(&self, name: &str) -> HostIdentity {
        HostIdentity::new(&self.host, name)
    }

    pub(crate) fn database(&self) -> PathBuf {
        database_in(&self.folder)
    }

    pub(crate) fn code_cache(&self) -> PathBuf {
        self.folder.join("code")
    }

    /// Returns the key that authenticates compiled code. Each folder has its own. Hosts that
    /// share the keys of secrets do not trust each other's code, and a rotation of those keys
    /// invalidates no code.
    pub(crate) fn cache_key(&self) -> [u8; KEY_BYTES] {
        *self.code_key
    }
}

fn code_key(folder: &Path) -> Result<Zeroizing<[u8; KEY_BYTES]>, StartError> {
    let bytes = key_file::read_or_create(&folder.join("code.key"))?.current_only().to_bytes();
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    key.copy_from_slice(&bytes);
    Ok(key)
}

/// Returns the path of the database in a data folder, whether or not a host has the
/// folder.
pub(crate) fn database_in(folder: &Path) -> PathBuf {
    folder.join("exosphere.db")
}

/// Locks a file, created if it does not exist, for as long as the result lives. A lock counts
/// only while its file has this name, because a renamed or removed file excludes no other host.
fn lock_file(folder: &Path, path: &Path) -> Result<File, StartError> {
    let cannot = |error| StartError::Folder { folder: folder.display().to_string(), error };
    for _ in 0..MAX_LOCK_ATTEMPTS {
        let mut open = OpenOptions::new();
        let open = open.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = open.open(path).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StartError::InUse(folder.display().to_string()));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let metadata = file.metadata().map_err(cannot)?;
        match std::fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (metadata.dev(), metadata.ino()) => {
                return Ok(file);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot(error)),
        }
    }
    Err(StartError::InUse(folder.display().to_string()))
}

/// Removes the access of other users to a folder, and to the files that hosts create in
/// it. An open folder that belongs to another user is refused.
fn close_to_other_users(folder: &Path) -> Result<(), StartError> {
    let name = || folder.display().to_string();
    let cannot = |error| StartError::Folder { folder: name(), error };
    let opened = File::open(folder).map_err(cannot)?;
    let found = opened.metadata().map_err(cannot)?;
    if found.mode() & OTHER_USERS != 0 {
        let user = rustix::process::geteuid().as_raw();
        if found.uid() != user {
            return Err(StartError::OpenFolder { folder: name(), owner: found.uid(), ours: user });
        }
        opened.set_permissions(Permissions::from_mode(0o700)).map_err(cannot)?;
        tracing::warn!(folder = name(), "the data folder was open to others; it is 0700 now");
    }
    for file in HOST_FILES {
        let path = folder.join(file);
        // A link names a file elsewhere, whose mode this host must not change.
        let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
        if found.mode() & OTHER_USERS != 0 && !found.is_symlink() {
            let mode = if found.is_dir() { 0o700 } else { 0o600 };
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(cannot)?;
            tracing::warn!(file, "a file of the data folder was open to others; it is not now");
        }
    }
    Ok(())
}

/// Files that hosts create in a data folder, except key files, which `keys/file.rs` closes.
const HOST_FILES: [&str; 7] = [
    "lock",
    "host.id",
    "exosphere.db",
    "exosphere.db-wal",
    "exosphere.db-shm",
    "code",
    ADMIN_KEY_FILE,
];

/// Returns the id in a file, or a new one if the file holds none.
fn host_id(file: &mut File) -> io::Result<String> {
    let mut known = String::new();
    let read = file.take(64).read_to_string(&mut known);
    if read.is_ok()
        && let Ok(id) = known.trim().parse::<Uuid>()
    {
        return Ok(id.to_string());
    }
    let id = crate::system::random_id().to_string();
    file.set_len(0)?;
    io::Seek::rewind(file)?;
    file.write_all(id.as_bytes())?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    fn take(folder: &Path) -> Result<DataFolder, StartError> {
        DataFolder::take(folder, &KeySource::InFolder).map(|(taken, _)| taken)
    }

    #[test]
    fn an_open_folder_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
        for file in ["exosphere.db", "host.id"] {
            std::fs::write(data.join(file), "").unwrap();
            std::fs::set_permissions(data.join(file), Permissions::from_mode(0o644)).unwrap();
        }
        take(&data).unwrap();
        assert_eq!(mode(&data), 0o700);
        for file in ["exosphere.db", "host.id", "lock"] {
            assert_eq!(mode(&data.join(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn a_removed_lock_file_still_excludes() {
        let folder = tempfile::tempdir().unwrap();
        let first = take(folder.path()).unwrap();
        for (file, renamed) in [("lock", "lock.old"), ("lock", "lock.older")] {
            std::fs::rename(folder.path().join(file), folder.path().join(renamed)).unwrap();
            assert!(matches!(take(folder.path()), Err(StartError::InUse(_))));
        }
        let host = first.host.clone();
        drop(first);
        assert_eq!(take(folder.path()).unwrap().host, host, "the id stays");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_database_lock_survives_removed_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = take(folder.path()).unwrap();
        first.lock_database().unwrap();
        for file in ["lock", "host.id"] {
            std::fs::remove_file(folder.path().join(file)).unwrap();
        }
        let mut second = take(folder.path()).unwrap();
        assert!(matches!(second.lock_database(), Err(StartError::InUse(_))));
        assert_eq!(mode(&first.database()), 0o600);
    }
}
