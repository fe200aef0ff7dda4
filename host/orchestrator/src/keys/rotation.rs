//! Key rotation: encrypts the secrets of a database under another key, while hosts use it. It
//! may be ended at any moment: the key file can decrypt every secret at all times, and the next
//! call finishes.
//!
//! The steps, in this order: the new key is put first in the file, before the old ones; the
//! database records it as one in use; every secret is encrypted under it; the old ones are no
//! longer in use; they leave the file.
//!
//! Not here: the encryption (`exosphere_store`).

use std::path::{Path, PathBuf};

use exosphere_store::{
    BadKeys, CheckError, Database, KeyId, Keyring, LostSecrets, OpenError, Reencrypted,
    SecretCipher, Store, StoreError, ensure_current_schema,
};

use crate::data_folder::database_in;
use crate::keys::file::{self as key_file, KeyFileError};
use crate::keys::source::KeySource;

/// A database, and the source of its keys.
#[derive(Debug, Clone)]
pub struct KeyRotation {
    /// The data folder of a host.
    pub data: PathBuf,
    /// The URL of a Postgres database instead of the one in the folder.
    pub database: Option<String>,
    /// The source of the keys.
    pub keys: KeySource,
}

/// The result of a rotation.
#[derive(Debug, Clone)]
pub struct Rotated {
    /// The key that encrypts every secret now.
    pub key: KeyId,
    /// Secrets that were encrypted under it by this call.
    pub secrets: u64,
    /// Secrets that no key decrypts, and that were given up.
    pub forgotten: Vec<String>,
    /// Set if this call finished an earlier one.
    pub resumed: bool,
    /// Set if older keys are left.
    pub has_older: bool,
}

/// The reason why secrets are not under another key.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The keys are not in a file, so a new key cannot be added.
    #[error(
        "the keys come from EXOSPHERE_MASTER_KEY, so there is no file to put a new one into. \
         Put a new key (`openssl rand -hex 32`) and a comma before the ones in it, restart every host with that, \
         run `exosphere secrets reseal` with it, too, and take the old ones out at the next restart"
    )]
    NoFile,
    /// The key file cannot be used.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The key file would hold too many keys.
    #[error("no further key fits into the key file: {0}; rotate without --keep-old first")]
    Full(BadKeys),
    /// The database does not exist or belongs to another version.
    #[error(transparent)]
    Database(#[from] CheckError),
    /// The database cannot be opened, or it has different keys.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database cannot be read or written.
    #[error("{0}; nothing is lost: run this again to finish")]
    Store(#[from] StoreError),
    /// Some secrets cannot be decrypted.
    #[error(
        "{} of the secrets cannot be opened, so the old keys are kept. \
         Apply their graphs again with the secrets set, or give them up with `exosphere secrets reseal --forget-lost`, \
         and run this again: {}", .0.len(), first_few(.0)
    )]
    LostSecrets(Vec<String>),
}

/// Formats the first few lost secrets.
fn first_few(lost: &[String]) -> String {
    const MAX_LISTED_SECRETS: usize = 5;
    let unlisted = lost.len().saturating_sub(MAX_LISTED_SECRETS);
    let listed =
        lost.iter().take(MAX_LISTED_SECRETS).map(String::as_str).collect::<Vec<_>>().join("; ");
    if unlisted == 0 { listed } else { format!("{listed}; and {unlisted} more") }
}

impl KeyRotation {
    fn database(&self) -> Database {
        let url = self.database.clone();
        url.map_or_else(|| Database::Sqlite(database_in(&self.data)), Database::Postgres)
    }

    /// Creates a new key and encrypts every secret under it. The old keys leave the key file,
    /// unless they are to be kept for backups of the database.
    ///
    /// # Errors
    ///
    /// If it cannot be completed; it can then be called again.
    pub async fn rotate(&self, keep_old: bool) -> Result<Rotated, RotationError> {
        let file = self.keys.file_or_keys(&self.data).map_err(|_| RotationError::NoFile)?;
        let _lock = key_file::lock(&file)?;
        ensure_current_schema(&self.database()).await?;
        let keys = key_file::read(&file)?;
        let store = Store::open(&self.database(), SecretCipher::new(keys.clone())).await?;
        let done = rotate(&store, &file, keys, keep_old).await;
        store.close().await;
        done
    }

    /// Encrypts every secret under the current key. With [`LostSecrets::Delete`], it also opens
    /// a database that would be refused for secrets that no key decrypts.
    ///
    /// # Errors
    ///
    /// If it cannot be completed; it can then be called again.
    pub async fn reencrypt(&self, lost_secrets: LostSecrets) -> Result<Rotated, RotationError> {
        ensure_current_schema(&self.database()).await?;
        let cipher = self.keys.cipher(&self.data, key_file::read)?;
        let store = match lost_secrets {
            LostSecrets::Keep => Store::open(&self.database(), cipher).await?,
            LostSecrets::Delete => Store::open_without_key_check(&self.database(), cipher).await?,
        };
        let done = reencrypt(&store, lost_secrets).await;
        store.close().await;
        done
    }
}

async fn rotate(
    store: &Store,
    file: &Path,
    mut keys: Keyring,
    keep_old: bool,
) -> Result<Rotated, RotationError> {
    let resumed = keys.has_older() && !store.needs_no_reencryption().await?;
    if !resumed {
        let extended = Keyring::generate().with_older(&keys).to_bytes();
        keys = Keyring::from_bytes(&extended).map_err(RotationError::Full)?;
        key_file::replace(file, &keys)?;
        store.use_keys(keys.clone()).await?;
    }
    let Reencrypted { secrets, .. } = reencrypt_all(store, LostSecrets::Keep).await?;
    if !keep_old {
        keys = keys.current_only();
        key_file::replace(file, &keys)?;
    }
    let (key, has_older) = (keys.current().clone(), keys.has_older());
    Ok(Rotated { key, secrets, forgotten: Vec::new(), resumed, has_older })
}

async fn reencrypt(store: &Store, lost_secrets: LostSecrets) -> Result<Rotated, RotationError> {
    let keys = store.keys();
    // A database that was opened without a key check does not know these keys yet.
    store.use_keys((*keys).clone()).await?;
    let Reencrypted { secrets, lost: forgotten } = reencrypt_all(store, lost_secrets).await?;
    let (key, has_older) = (keys.current().clone(), keys.has_older());
    Ok(Rotated { key, secrets, forgotten, resumed: false, has_older })
}

async fn reencrypt_all(
    store: &Store,
    lost_secrets: LostSecrets,
) -> Result<Reencrypted, RotationError> {
    let done = store.reencrypt_secrets(lost_secrets).await?;
    if done.lost.is_empty() || lost_secrets == LostSecrets::Delete {
        return Ok(done);
    }
    Err(RotationError::LostSecrets(done.lost))
}
