//! Re-encrypts every secret under the current key while hosts are running, so that no older key is
//! needed. Works in small transactions: it may stop after any of them and resumes there.
//!
//! Not here: where keys are kept. The caller drops the old keys afterwards.

use std::sync::Arc;

use exosphere_domain::ids::Name;

use crate::catalog::{key_id, name};
use crate::cipher::SecretPlace;
use crate::error::StoreError;
use crate::keyring::{KeyId, Keyring};
use crate::text::{Cells, Tx, values};
use crate::{Store, key_check, sql, write};

/// Secrets per transaction, of 64 KiB each at most.
const PAGE: i64 = 64;

/// The result of a re-encryption.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resealed {
    /// The number of secrets re-encrypted under the current key.
    pub secrets: u64,
    /// Secrets that no key here decrypts. Unless they were removed, the old keys are still needed.
    pub lost: Vec<String>,
}

/// The treatment of secrets that no key decrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unopened {
    /// Keep them, and the older keys with them.
    Keep,
    /// Remove them.
    Forget,
}

/// A row of the table `secret`.
struct Row {
    namespace: Name,
    graph: Name,
    name: Name,
    sealed: Vec<u8>,
    key: KeyId,
}

impl Row {
    fn read(row: &dyn Cells) -> Result<Row, StoreError> {
        let part = |at, column| name(row.text(at)?, "secret", column);
        Ok(Row {
            namespace: part(0, "namespace")?,
            graph: part(1, "graph")?,
            name: part(2, "name")?,
            sealed: row.bytes(3)?,
            key: key_id(row.text(4)?)?,
        })
    }

    fn place(&self) -> SecretPlace<'_> {
        SecretPlace { namespace: &self.namespace, graph: &self.graph, name: &self.name }
    }
}

/// A keyset cursor over secrets: the key of the last row read. The default comes before all rows.
#[derive(Debug, Clone, Default)]
struct Behind(String, String, String);

impl Behind {
    fn row(row: &Row) -> Behind {
        Behind(row.namespace.to_string(), row.graph.to_string(), row.name.to_string())
    }
}

impl Store {
    /// Returns the keys that encrypt and decrypt secrets.
    pub fn keys(&self) -> Arc<Keyring> {
        self.vault.keys()
    }

    /// Returns whether every secret is encrypted under the current key, and no other key is in use.
    pub async fn needs_no_reencryption(&self) -> Result<bool, StoreError> {
        let keys = self.vault.keys();
        let seals = self.reader.rows(sql::SEALS, &[], |row| row.text(0)).await?;
        let others = self.count_of_others(&keys).await?;
        Ok(others == 0 && seals.iter().all(|id| id == keys.current().as_str()))
    }

    async fn count_of_others(&self, keys: &Keyring) -> Result<i64, StoreError> {
        let id = values![keys.current().as_str()];
        let count = self.reader.row(sql::SEALED_OTHERWISE, &id, |row| row.int(0)).await?;
        Ok(count.unwrap_or_default())
    }

    /// Replaces the keyring, and records that its current key is in use.
    pub async fn use_keys(&self, keys: Keyring) -> Result<(), StoreError> {
        let new = keys.clone();
        write!(self, 0, |tx| key_check::put_in_use(tx, &new))?;
        self.vault.take(keys);
        Ok(())
    }

    /// Retires the older keys, re-encrypts every secret under the current key and decrypts all of
    /// them as a test. Then removes the older keys from use if no secret needs them any more.
    ///
    /// # Errors
    ///
    /// If the database cannot be read or written. Finished transactions stay, and the older keys
    /// are still needed.
    pub async fn reseal(&self, unopened: Unopened) -> Result<Resealed, StoreError> {
        let keys = self.vault.keys();
        let mut done = Resealed::default();
        self.retire_others(&keys).await?;
        loop {
            let mut behind = Some(Behind::default());
            while let Some(from) = behind {
                let page = self.reseal_page(&keys, from).await?;
                done.secrets += page.resealed;
                behind = page.next;
            }
            self.look_for_lost(&keys, unopened, &mut done).await?;
            if !done.lost.is_empty() && unopened == Unopened::Keep {
                return Ok(done);
            }
            // A host started with the keys in another order may have put an old key into use again.
            if self.remove_others(&keys).await? {
                return Ok(done);
            }
            self.retire_others(&keys).await?;
        }
    }

    async fn reseal_page(&self, keys: &Keyring, behind: Behind) -> Result<Page, StoreError> {
        let keys = keys.clone();
        write!(self, 0, |tx| reseal_page(tx, &keys, &behind))
    }

    async fn retire_others(&self, keys: &Keyring) -> Result<(), StoreError> {
        let keys = keys.clone();
        write!(self, 0, |tx| key_check::retire_others(tx, &keys))
    }

    async fn remove_others(&self, keys: &Keyring) -> Result<bool, StoreError> {
        let keys = keys.clone();
        write!(self, 0, |tx| remove_others(tx, keys.current()))
    }

    /// Decrypts every stored secret, to find those that no key here decrypts.
    async fn look_for_lost(
        &self,
        keys: &Keyring,
        unopened: Unopened,
        done: &mut Resealed,
    ) -> Result<(), StoreError> {
        let mut behind = Behind::default();
        loop {
            let Behind(namespace, graph, name) = &behind;
            let from = values![namespace, graph, name, PAGE];
            let rows = self.reader.rows(sql::SECRETS, &from, Row::read).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            behind = Behind::row(last);
            for row in rows {
                if let Err(why) = row.place().open(keys, &row.key, &row.sealed) {
                    done.lost.push(why.to_string());
                    if unopened == Unopened::Forget {
                        write!(self, 0, |tx| forget(tx, &row))?;
                    }
                }
            }
        }
    }
}

/// The result of re-encrypting a page of secrets.
struct Page {
    resealed: u64,
    next: Option<Behind>,
}

async fn reseal_page(
    tx: &mut impl Tx,
    keys: &Keyring,
    Behind(namespace, graph, name): &Behind,
) -> Result<Page, StoreError> {
    let current = keys.current().as_str();
    let from = values![namespace, graph, name, PAGE, current];
    let rows = tx.query(sql::SECRETS_TO_RESEAL, &from, Row::read).await?;
    let mut resealed = 0;
    for row in &rows {
        // `look_for_lost` reports the secrets that cannot be decrypted.
        let Ok(value) = row.place().open(keys, &row.key, &row.sealed) else { continue };
        let sealed = row.place().seal(keys, &value);
        let sealed = sealed.map_err(|error| StoreError::Data(error.to_string()))?;
        let place = [&row.namespace, &row.graph, &row.name].map(Name::as_str);
        let again = values![place[0], place[1], place[2], sealed.as_slice(), current];
        resealed += tx.execute(sql::RESEAL, &again).await?;
    }
    Ok(Page { resealed, next: rows.last().map(Behind::row) })
}

/// Removes all keys but the current one, unless a secret is still encrypted under one of them.
/// Returns whether it did.
async fn remove_others(tx: &mut impl Tx, current: &KeyId) -> Result<bool, StoreError> {
    let current = values![current.as_str()];
    tx.query(sql::LOCK_SEALS, &[], |_| Ok(())).await?;
    let left = tx.query(sql::SEALED_OTHERWISE, &current, |row| row.int(0)).await?;
    if left.first() != Some(&0) {
        return Ok(false);
    }
    tx.execute(sql::REMOVE_SEALS, &current).await?;
    Ok(true)
}

async fn forget(tx: &mut impl Tx, row: &Row) -> Result<u64, StoreError> {
    let place = [&row.namespace, &row.graph, &row.name].map(Name::as_str);
    let row = values![place[0], place[1], place[2], row.sealed.as_slice()];
    tx.execute(sql::FORGET_SECRET, &row).await
}
