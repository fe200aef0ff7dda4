//! Re-encrypts every secret under the current key while hosts are running, so that no
//! older key is needed. Works in small transactions: it may stop after any of them and
//! resumes there.
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

/// Secrets of one transaction; each has 64 KiB at most.
const PAGE: i64 = 64;

/// What a re-sealing came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resealed {
    /// So many secrets came under the current key.
    pub secrets: u64,
    /// Those that no key here opens. Unless they were given up, the old keys
    /// are still needed.
    pub lost: Vec<String>,
}

/// What is done about secrets that no key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unopened {
    /// The older keys stay.
    Keep,
    /// They are removed.
    Forget,
}

/// A secret as it is stored.
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

/// Behind which secret to go on; all are behind nothing.
#[derive(Debug, Clone, Default)]
struct Behind(String, String, String);

impl Behind {
    fn row(row: &Row) -> Behind {
        Behind(row.namespace.to_string(), row.graph.to_string(), row.name.to_string())
    }
}

impl Store {
    /// The keys that secrets are sealed and opened with.
    pub fn keys(&self) -> Arc<Keyring> {
        self.vault.keys()
    }

    /// Whether everything is sealed under the vault's current key, and no other
    /// is in use.
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

    /// Takes these keys, and notes that the first of them is in use.
    pub async fn use_keys(&self, keys: Keyring) -> Result<(), StoreError> {
        let new = keys.clone();
        write!(self, 0, |tx| key_check::put_in_use(tx, &new))?;
        self.vault.take(keys);
        Ok(())
    }

    /// Puts the older keys out of use, brings everything under the current one,
    /// opens all of it again, and lets go of the older ones if there is nothing
    /// left that needs them.
    ///
    /// # Errors
    ///
    /// If the database cannot be read or written. What was done stays done, and
    /// the older keys are needed.
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
            // A host that was started with the keys in another order may have
            // put an old one into use again.
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

    /// Opens every secret, as it is stored now, with the keys that there are.
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

/// What came of a page.
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
        // Who cannot be opened is told of by whoever looks at all of them.
        let Ok(value) = row.place().open(keys, &row.key, &row.sealed) else { continue };
        let sealed = row.place().seal(keys, &value);
        let sealed = sealed.map_err(|error| StoreError::Data(error.to_string()))?;
        let place = [&row.namespace, &row.graph, &row.name].map(Name::as_str);
        let again = values![place[0], place[1], place[2], sealed.as_slice(), current];
        resealed += tx.execute(sql::RESEAL, &again).await?;
    }
    Ok(Page { resealed, next: rows.last().map(Behind::row) })
}

/// Removes all keys but one, unless something is still sealed under them; tells
/// whether it did.
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
