//! The source of the keys that encrypt secrets.

use std::path::{Path, PathBuf};

use exosphere_store::{Keyring, SecretCipher};

use crate::keys::file::{self as key_file, KeyFileError};

/// The source of the keys. Hosts that share a database share them.
#[derive(Debug, Clone, Default)]
pub enum KeySource {
    /// The file `host.key` of the data folder.
    #[default]
    InFolder,
    /// A file elsewhere.
    File(PathBuf),
    /// Keys that were given by an environment variable.
    Given(Keyring),
}

impl KeySource {
    /// Returns the key file, or else the keys themselves.
    pub(crate) fn file_or_keys(&self, folder: &Path) -> Result<PathBuf, &Keyring> {
        match self {
            KeySource::InFolder => Ok(folder.join("host.key")),
            KeySource::File(file) => Ok(file.clone()),
            KeySource::Given(keys) => Err(keys),
        }
    }

    /// Creates a cipher with these keys. A key file is read again when a key is missing;
    /// given keys stay the same until the next start.
    pub(crate) fn cipher(
        &self,
        folder: &Path,
        read: impl Fn(&Path) -> Result<Keyring, KeyFileError>,
    ) -> Result<SecretCipher, KeyFileError> {
        match self.file_or_keys(folder) {
            Err(keys) => Ok(SecretCipher::new(keys.clone())),
            Ok(file) => {
                let cipher = SecretCipher::new(read(&file)?);
                Ok(cipher
                    .with_reload(move || key_file::read(&file).map_err(|error| error.to_string())))
            }
        }
    }
}
