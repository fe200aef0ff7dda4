//! Key files. A file is complete as soon as it has its name, and no other user can read
//! it.
//!
//! Not here: how such files are written (`private_file`), and the use of the keys.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use exosphere_store::{BadKeys, KEY_BYTES, Keyring, MAX_KEYS};
use zeroize::Zeroizing;

use crate::private_file;

/// The reason why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read, created or replaced.
    #[error("the key file {file} cannot be used: {error}")]
    Io {
        /// The path of the file.
        file: String,
        /// The error of the system.
        error: io::Error,
    },
    /// The file is not a valid key file.
    #[error(
        "{file} is not a valid key file: {cause}. Restore it from a backup: secrets encrypted with its \
         keys cannot be read without it"
    )]
    Bad {
        /// The path of the file.
        file: String,
        /// The reason why the file is not valid.
        cause: BadKeys,
    },
    /// Another process is rotating the keys.
    #[error("the keys in {0} are being rotated by another process; wait for its end")]
    Locked(String),
}

fn unusable(file: &Path) -> impl Fn(io::Error) -> KeyFileError {
    move |error| KeyFileError::Io { file: file.display().to_string(), error }
}

/// Reads the keys of an existing file.
pub(crate) fn read(file: &Path) -> Result<Keyring, KeyFileError> {
    parse(file, read_bytes(file).map_err(unusable(file))?)
}

/// Reads the keys of a file, which is created with a new key if it does not exist.
pub(crate) fn read_or_create(file: &Path) -> Result<Keyring, KeyFileError> {
    let bytes = read_bytes(file).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => create(file),
        _ => Err(error),
    });
    parse(file, bytes.map_err(unusable(file))?)
}

fn parse(file: &Path, bytes: Zeroizing<Vec<u8>>) -> Result<Keyring, KeyFileError> {
    let bad_key_file = |cause| KeyFileError::Bad { file: file.display().to_string(), cause };
    Keyring::from_bytes(&bytes).map_err(bad_key_file)
}

/// Reads the bytes of a file. If other users can read it, its mode is set to 0600.
fn read_bytes(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let max_bytes = KEY_BYTES * MAX_KEYS + 1;
    // The full capacity is allocated first, since a buffer that grew would leave copies.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max_bytes + 1));
    let mut open = File::open(file)?;
    Read::by_ref(&mut open).take(max_bytes as u64).read_to_end(&mut bytes)?;
    if open.metadata()?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "the key file was open to others; it is 0600 now");
        open.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(bytes)
}

/// Creates a key file. Hosts that share it may start at the same time; the first file wins.
fn create(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let bytes = Keyring::generate().to_bytes();
    let draft = private_file::with_ending(file, &crate::system::random_id().to_string());
    let named =
        private_file::write(&draft, &bytes, None).and_then(|()| fs::hard_link(&draft, file));
    fs::remove_file(&draft)?;
    match named {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_bytes(file),
        Err(error) => Err(error),
        Ok(()) => private_file::sync_folder(file).map(|()| bytes),
    }
}

/// Replaces the keys in an existing file. A concurrent reader finds all of the old keys
/// or all of the new ones.
pub(crate) fn replace(file: &Path, keys: &Keyring) -> Result<(), KeyFileError> {
    let replaced = || {
        // A link must continue to name the file.
        let file = fs::canonicalize(file)?;
        let owner = fs::metadata(&file)?;
        private_file::replace(&file, &keys.to_bytes(), Some((owner.uid(), owner.gid())))
    };
    replaced().map_err(unusable(file))
}

/// A lock that keeps other processes from replacing the keys in a file.
pub(crate) struct Lock(#[expect(dead_code, reason = "it is unlocked when it is closed")] File);

pub(crate) fn lock(file: &Path) -> Result<Lock, KeyFileError> {
    // The folder is locked, since the file itself is replaced.
    let folder = fs::canonicalize(file).and_then(|file| File::open(private_file::folder_of(&file)));
    let folder = folder.map_err(unusable(file))?;
    match folder.try_lock() {
        Ok(()) => Ok(Lock(folder)),
        Err(TryLockError::WouldBlock) => Err(KeyFileError::Locked(file.display().to_string())),
        Err(TryLockError::Error(error)) => Err(unusable(file)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_key_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("host.key");
        assert!(matches!(read(&file), Err(KeyFileError::Io { .. })), "it is not made by reading");
        let created = read_or_create(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        assert_eq!(read_or_create(&file).unwrap().current(), created.current());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        // A draft that a killed process has left.
        fs::write(private_file::with_ending(&file, "new"), "half").unwrap();
        let both = Keyring::generate().with_older(&created);
        replace(&link, &both).unwrap();
        assert!(read(&link).unwrap().ids().eq(both.ids()));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(mode(&file), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no draft is left");
    }

    #[test]
    fn bad_key_files_are_refused_open_ones_closed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        for length in [0, 31, 40, KEY_BYTES * (MAX_KEYS + 1), 100_000] {
            fs::write(&file, vec![1; length]).unwrap();
            assert!(matches!(read_or_create(&file), Err(KeyFileError::Bad { .. })), "{length}");
        }
        fs::write(&file, [1; 32]).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        read(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        let first = lock(&file).unwrap();
        assert!(matches!(lock(&file), Err(KeyFileError::Locked(_))));
        drop(first);
        lock(&file).unwrap();
    }
}
