//! Which keys are in use on a database: for each, a known text is sealed under
//! it (the table `seal`). A host that lacks one of them is told at its start,
//! not when a node asks for a secret; and a key goes out of use only when
//! nothing is sealed under it, and nobody is about to.
//!
//! Not here: how secrets come under another key (`reseal`).

use crate::catalog::{key_id, name};
use crate::error::{OpenError, StoreError};
use crate::keyring::{KeyId, Keyring};
use crate::text::{Cells, Tx, values};
use crate::vault::SecretPlace;
use crate::{Store, sql, write};

/// The known text.
const TEXT: &str = "exosphere";

/// Where the known text of a key belongs. No secret's place reads like it: those
/// have two NULs.
fn place(id: &KeyId) -> Vec<u8> {
    format!("seal\0{id}").into_bytes()
}

impl Store {
    /// Refuses a database whose secrets are sealed under keys that are not in
    /// the vault; notes that its current key is in use. The first host on a
    /// database decides which key that is.
    pub(crate) async fn prove_keys(&self) -> Result<(), OpenError> {
        let keys = self.vault.keys();
        let ids = keys.ids().map(KeyId::to_string).collect::<Vec<_>>().join(", ");
        let lacking: Vec<String> = write!(self, 0, |tx| prove(tx, &keys))?;
        match lacking.is_empty() {
            true => Ok(()),
            false => Err(OpenError::OtherKey { lacking: lacking.join(", "), has: ids }),
        }
    }
}

/// The ids of keys that are in use and not here.
async fn prove(tx: &mut impl Tx, keys: &Keyring) -> Result<Vec<String>, StoreError> {
    tx.query(sql::LOCK_SEALS, &[], |_| Ok(())).await?;
    let read = |row: &dyn Cells| Ok((key_id(row.text(0)?)?, row.bytes(1)?));
    let seals = tx.query(sql::SEALS, &[], read).await?;
    let mut lacking = Vec::new();
    if seals.is_empty() && !opens_a_secret(tx, keys).await? {
        lacking.push("of the time before keys had ids".to_owned());
    }
    for (id, sealed) in &seals {
        let opened = keys.open(id, &place(id), sealed);
        if !opened.is_ok_and(|text| *text == TEXT) {
            lacking.push(id.to_string());
        }
    }
    let current = keys.current();
    if lacking.is_empty() && !seals.iter().any(|(id, _)| id == current) {
        put_in_use(tx, keys).await?;
    }
    Ok(lacking)
}

/// Notes that the current key is in use.
pub(crate) async fn put_in_use(tx: &mut impl Tx, keys: &Keyring) -> Result<(), StoreError> {
    let id = keys.current();
    let sealed = keys.seal(&place(id), TEXT);
    let sealed = sealed.map_err(|_| StoreError::Data(format!("nothing is sealed under {id}")))?;
    tx.execute(sql::NEW_SEAL, &values![id.as_str(), sealed.as_slice()]).await?;
    Ok(())
}

/// Whether a key is in use, and goes on to be until this transaction ends.
pub(crate) async fn is_in_use(tx: &mut impl Tx, id: &KeyId) -> Result<bool, StoreError> {
    let found = tx.query(sql::IS_IN_USE, &values![id.as_str()], |_| Ok(())).await?;
    Ok(!found.is_empty())
}

/// Whether these keys open a secret of before there were known texts, if there
/// is one.
async fn opens_a_secret(tx: &mut impl Tx, keys: &Keyring) -> Result<bool, StoreError> {
    let read = |row: &dyn Cells| {
        let part = |at, column| name(row.text(at)?, "secret", column);
        let place = (part(0, "namespace")?, part(1, "graph")?, part(2, "name")?);
        Ok((place, row.bytes(3)?, key_id(row.text(4)?)?))
    };
    let any = tx.query(sql::ANY_SECRET, &[], read).await?;
    let Some(((namespace, graph, name), sealed, id)) = any.first() else { return Ok(true) };
    Ok(SecretPlace { namespace, graph, name }.open(keys, id, sealed).is_ok())
}
