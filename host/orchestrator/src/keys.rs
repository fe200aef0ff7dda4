//! Where a host has the keys from that seal secrets.

use std::path::{Path, PathBuf};

use exosphere_store::{Keyring, SecretCipher};

use crate::key_file::{self, KeyFileError};

/// Where the keys are. Hosts that share a database share them.
#[derive(Debug, Clone, Default)]
pub enum Keys {
    /// In the file `host.key` of the data folder.
    #[default]
    InFolder,
    /// In a file elsewhere.
    File(PathBuf),
    /// They were given, by a variable of the environment.
    Given(Keyring),
}

impl Keys {
    /// The file that they are in, or else the keys themselves.
    pub(crate) fn place(&self, folder: &Path) -> Result<PathBuf, &Keyring> {
        match self {
            Keys::InFolder => Ok(folder.join("host.key")),
            Keys::File(file) => Ok(file.clone()),
            Keys::Given(keys) => Err(keys),
        }
    }

    /// A vault with these keys. A file is read again when one is missing; who
    /// was given them learns of no other until the next start.
    pub(crate) fn vault(
        &self,
        folder: &Path,
        read: impl Fn(&Path) -> Result<Keyring, KeyFileError>,
    ) -> Result<SecretCipher, KeyFileError> {
        match self.place(folder) {
            Err(keys) => Ok(SecretCipher::new(keys.clone())),
            Ok(file) => {
                let vault = SecretCipher::new(read(&file)?);
                Ok(vault.asking(move || key_file::read(&file).map_err(|error| error.to_string())))
            }
        }
    }
}
