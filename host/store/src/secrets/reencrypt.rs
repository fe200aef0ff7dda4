//! Reencrypts every secret under the current key while hosts are running, so that no older key is
//! needed. Works in small transactions: it may stop after any of them and resumes there.
//!
//! Not here: where keys are kept. The caller drops the old keys afterwards.

use std::sync::Arc;

use exosphere_domain::ids::Name;

use crate::codec::{to_key_id, to_name};
use crate::dialect::{Row, Tx, params};
use crate::error::StoreError;
use crate::secrets::key_check;
use crate::secrets::keyring::{KeyId, Keyring};
use crate::secrets::secret_cipher::SecretScope;
use crate::{Store, in_transaction, sql};

/// Number of secrets per transaction, each of 64 KiB at most.
const SECRETS_PER_PAGE: i64 = 64;

/// The result of a reencryption.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reencrypted {
    /// The number of secrets reencrypted under the current key.
    pub secrets: u64,
    /// Secrets that no key here decrypts. Unless they were removed, the old keys are still needed.
    pub lost: Vec<String>,
}

/// The treatment of secrets that no key decrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostSecrets {
    /// Keep them, and the older keys with them.
    Keep,
    /// Remove them.
    Delete,
}

/// A row of the table `secret`.
struct SecretRow {
    namespace: Name,
    graph: Name,
    name: Name,
    ciphertext: Vec<u8>,
    key: KeyId,
}

impl SecretRow {
    fn read(row: &dyn Row) -> Result<SecretRow, StoreError> {
        let part = |at, column| to_name(row.text(at)?, "secret", column);
        Ok(SecretRow {
            namespace: part(0, "namespace")?,
            graph: part(1, "graph")?,
            name: part(2, "name")?,
            ciphertext: row.bytes(3)?,
            key: to_key_id(row.text(4)?)?,
        })
    }

    fn scope(&self) -> SecretScope<'_> {
        SecretScope { namespace: &self.namespace, graph: &self.graph, name: &self.name }
    }
}

/// A keyset cursor over secrets: the key of the last row read. The default comes before all rows.
#[derive(Debug, Clone, Default)]
struct Cursor(String, String, String);

impl Cursor {
    fn after(row: &SecretRow) -> Cursor {
        Cursor(row.namespace.to_string(), row.graph.to_string(), row.name.to_string())
    }
}

impl Store {
    /// Returns the keys that encrypt and decrypt secrets.
    pub fn keys(&self) -> Arc<Keyring> {
        self.cipher.keys()
    }

    /// Returns whether every secret is encrypted under the current key, and no other key is in use.
    pub async fn needs_no_reencryption(&self) -> Result<bool, StoreError> {
        let keys = self.cipher.keys();
        let checks = self.reader.rows(sql::KEY_CHECKS, &[], |row| row.text(0)).await?;
        let other_secrets = self.count_others(&keys).await?;
        Ok(other_secrets == 0 && checks.iter().all(|id| id == keys.current().as_str()))
    }

    async fn count_others(&self, keys: &Keyring) -> Result<i64, StoreError> {
        let id = params![keys.current().as_str()];
        let count =
            self.reader.row(sql::COUNT_SECRETS_OF_OTHER_KEYS, &id, |row| row.int(0)).await?;
        Ok(count.unwrap_or_default())
    }

    /// Replaces the keyring, and records that its current key is in use.
    pub async fn use_keys(&self, keys: Keyring) -> Result<(), StoreError> {
        let new = keys.clone();
        in_transaction!(self, 0, |tx| key_check::put_in_use(tx, &new))?;
        self.cipher.replace_keys(keys);
        Ok(())
    }

    /// Retires the older keys, reencrypts every secret under the current key and decrypts all of
    /// them as a test. Then removes the older keys from use if no secret needs them any more.
    ///
    /// # Errors
    ///
    /// If the database cannot be read or written. Finished transactions stay, and the older keys
    /// are still needed.
    pub async fn reencrypt_secrets(
        &self,
        lost_secrets: LostSecrets,
    ) -> Result<Reencrypted, StoreError> {
        let keys = self.cipher.keys();
        let mut done = Reencrypted::default();
        self.retire_others(&keys).await?;
        loop {
            let mut cursor = Some(Cursor::default());
            while let Some(from) = cursor {
                let page = self.reencrypt_page(&keys, from).await?;
                done.secrets += page.reencrypted;
                cursor = page.next;
            }
            self.find_lost(&keys, lost_secrets, &mut done).await?;
            if !done.lost.is_empty() && lost_secrets == LostSecrets::Keep {
                return Ok(done);
            }
            // A host started with the keys in another order may have put an old key into use again.
            if self.remove_others(&keys).await? {
                return Ok(done);
            }
            self.retire_others(&keys).await?;
        }
    }

    async fn reencrypt_page(
        &self,
        keys: &Keyring,
        cursor: Cursor,
    ) -> Result<ReencryptedPage, StoreError> {
        let keys = keys.clone();
        in_transaction!(self, 0, |tx| reencrypt_page(tx, &keys, &cursor))
    }

    async fn retire_others(&self, keys: &Keyring) -> Result<(), StoreError> {
        let keys = keys.clone();
        in_transaction!(self, 0, |tx| key_check::retire_others(tx, &keys))
    }

    async fn remove_others(&self, keys: &Keyring) -> Result<bool, StoreError> {
        let keys = keys.clone();
        in_transaction!(self, 0, |tx| remove_others(tx, keys.current()))
    }

    /// Decrypts every stored secret, to find those that no key here decrypts.
    async fn find_lost(
        &self,
        keys: &Keyring,
        lost_secrets: LostSecrets,
        done: &mut Reencrypted,
    ) -> Result<(), StoreError> {
        let mut cursor = Cursor::default();
        loop {
            let Cursor(namespace, graph, name) = &cursor;
            let from = params![namespace, graph, name, SECRETS_PER_PAGE];
            let rows = self.reader.rows(sql::SECRETS, &from, SecretRow::read).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            cursor = Cursor::after(last);
            for row in rows {
                if let Err(cause) = row.scope().open(keys, &row.key, &row.ciphertext) {
                    done.lost.push(cause.to_string());
                    if lost_secrets == LostSecrets::Delete {
                        in_transaction!(self, 0, |tx| delete_secret(tx, &row))?;
                    }
                }
            }
        }
    }
}

/// The result of reencrypting a page of secrets.
struct ReencryptedPage {
    reencrypted: u64,
    next: Option<Cursor>,
}

async fn reencrypt_page(
    tx: &mut impl Tx,
    keys: &Keyring,
    Cursor(namespace, graph, name): &Cursor,
) -> Result<ReencryptedPage, StoreError> {
    let current = keys.current().as_str();
    let from = params![namespace, graph, name, SECRETS_PER_PAGE, current];
    let rows = tx.query(sql::SECRETS_TO_REENCRYPT, &from, SecretRow::read).await?;
    let mut reencrypted = 0;
    for row in &rows {
        // `find_lost` reports the secrets that cannot be decrypted.
        let Ok(value) = row.scope().open(keys, &row.key, &row.ciphertext) else { continue };
        let ciphertext = row.scope().encrypt(keys, &value);
        let ciphertext = ciphertext.map_err(|error| StoreError::Data(error.to_string()))?;
        let scope = [&row.namespace, &row.graph, &row.name].map(Name::as_str);
        let update = params![scope[0], scope[1], scope[2], ciphertext.as_slice(), current];
        reencrypted += tx.execute(sql::REENCRYPT_SECRET, &update).await?;
    }
    Ok(ReencryptedPage { reencrypted, next: rows.last().map(Cursor::after) })
}

/// Removes all keys but the current one, unless a secret is still encrypted under one of them.
/// Returns whether it did.
async fn remove_others(tx: &mut impl Tx, current: &KeyId) -> Result<bool, StoreError> {
    let current = params![current.as_str()];
    tx.query(sql::LOCK_KEY_CHECKS, &[], |_| Ok(())).await?;
    let left = tx.query(sql::COUNT_SECRETS_OF_OTHER_KEYS, &current, |row| row.int(0)).await?;
    if left.first() != Some(&0) {
        return Ok(false);
    }
    tx.execute(sql::REMOVE_OTHER_KEY_CHECKS, &current).await?;
    Ok(true)
}

async fn delete_secret(tx: &mut impl Tx, row: &SecretRow) -> Result<u64, StoreError> {
    let scope = [&row.namespace, &row.graph, &row.name].map(Name::as_str);
    let row = params![scope[0], scope[1], scope[2], row.ciphertext.as_slice()];
    tx.execute(sql::DELETE_LOST_SECRET, &row).await
}
