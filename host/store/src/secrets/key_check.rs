//! Key check values: for each key in use the database stores a known plaintext encrypted under it
//! (table `seal`). So a host with a missing key is refused at start-up, and not when a node asks
//! for a secret.
//!
//! The plaintext says whether the key may encrypt. A rotation retires the old key first, so that
//! nothing new is encrypted under it. When no secret under it is left, its check value is removed,
//! and no host needs the key.
//!
//! Not here: reencryption under another key (`reencrypt`).

use crate::codec::{to_key_id, to_name};
use crate::dialect::{Row, Tx, params};
use crate::error::{OpenError, StoreError};
use crate::secrets::keyring::{KeyId, Keyring};
use crate::secrets::secret_cipher::SecretScope;
use crate::{Store, in_transaction, sql};

/// The known plaintext of a key that encrypts and decrypts.
const IN_USE_TEXT: &str = "exosphere";

/// The known plaintext of a retired key, which only decrypts.
const RETIRED_TEXT: &str = "exosphere retired";

/// Returns the place that a key check value is bound to. No secret's place is equal to it,
/// because those contain two NULs.
fn scope_of(id: &KeyId) -> Vec<u8> {
    format!("seal\0{id}").into_bytes()
}

impl Store {
    /// Refuses a database with keys in use that the keyring lacks; records that the current key is
    /// in use. The first host on a database decides which key that is.
    pub(crate) async fn verify_keys(&self) -> Result<(), OpenError> {
        let keys = self.cipher.keys();
        let ids = keys.ids().map(KeyId::to_string).collect::<Vec<_>>().join(", ");
        let lacking: Vec<String> = in_transaction!(self, 0, |tx| verify_keys(tx, &keys))?;
        if lacking.is_empty() {
            Ok(())
        } else {
            Err(OpenError::OtherKey { lacking: lacking.join(", "), has: ids })
        }
    }
}

/// Returns the ids of keys that are in use and missing from the keyring.
async fn verify_keys(tx: &mut impl Tx, keys: &Keyring) -> Result<Vec<String>, StoreError> {
    tx.query(sql::LOCK_KEY_CHECKS, &[], |_| Ok(())).await?;
    let checks = tx.query(sql::KEY_CHECKS, &[], read).await?;
    let mut lacking = Vec::new();
    if checks.is_empty() && !decrypts_a_secret(tx, keys).await? {
        lacking.push("of the time before keys had ids".to_owned());
    }
    for (id, ciphertext) in &checks {
        if !keys.decrypt(id, &scope_of(id), ciphertext).is_ok_and(|text| is_known(&text)) {
            lacking.push(id.to_string());
        }
    }
    if lacking.is_empty() && !lock_current_key(tx, keys).await? {
        put_in_use(tx, keys).await?;
    }
    Ok(lacking)
}

fn is_known(text: &str) -> bool {
    text == IN_USE_TEXT || text == RETIRED_TEXT
}

/// Reads the id and the encrypted check value of a key.
fn read(row: &dyn Row) -> Result<(KeyId, Vec<u8>), StoreError> {
    Ok((to_key_id(row.text(0)?)?, row.bytes(1)?))
}

/// Records that the current key is in use.
pub(crate) async fn put_in_use(tx: &mut impl Tx, keys: &Keyring) -> Result<(), StoreError> {
    tx.query(sql::LOCK_KEY_CHECKS, &[], |_| Ok(())).await?;
    set(tx, keys, keys.current(), IN_USE_TEXT).await
}

/// Retires all keys but the current one, and waits for transactions that encrypt under them. A key
/// that the keyring lacks stays as it is.
pub(crate) async fn retire_others(tx: &mut impl Tx, keys: &Keyring) -> Result<(), StoreError> {
    tx.query(sql::LOCK_KEY_CHECKS, &[], |_| Ok(())).await?;
    for (id, _) in tx.query(sql::KEY_CHECKS, &[], read).await? {
        if id != *keys.current() && keys.ids().any(|known| *known == id) {
            set(tx, keys, &id, RETIRED_TEXT).await?;
        }
    }
    Ok(())
}

async fn set(tx: &mut impl Tx, keys: &Keyring, id: &KeyId, text: &str) -> Result<(), StoreError> {
    let ciphertext = keys.encrypt_under(id, &scope_of(id), text);
    let ciphertext = ciphertext
        .map_err(|_| StoreError::Data(format!("the key check of {id} cannot be read")))?;
    tx.execute(sql::SET_KEY_CHECK, &params![id.as_str(), ciphertext.as_slice()]).await?;
    Ok(())
}

/// Returns whether the current key is in use; it stays so until this transaction ends.
pub(crate) async fn lock_current_key(tx: &mut impl Tx, keys: &Keyring) -> Result<bool, StoreError> {
    let found = tx.query(sql::KEY_CHECK, &params![keys.current().as_str()], read).await?;
    let opened = found.first().map(|(id, ciphertext)| keys.decrypt(id, &scope_of(id), ciphertext));
    Ok(opened.is_some_and(|text| text.is_ok_and(|text| *text == IN_USE_TEXT)))
}

/// Returns whether these keys decrypt a secret from before there were key check values, if one
/// exists.
async fn decrypts_a_secret(tx: &mut impl Tx, keys: &Keyring) -> Result<bool, StoreError> {
    let read = |row: &dyn Row| {
        let part = |at, column| to_name(row.text(at)?, "secret", column);
        let scope = (part(0, "namespace")?, part(1, "graph")?, part(2, "name")?);
        Ok((scope, row.bytes(3)?, to_key_id(row.text(4)?)?))
    };
    let any = tx.query(sql::ANY_SECRET, &[], read).await?;
    let Some(((namespace, graph, name), ciphertext, id)) = any.first() else { return Ok(true) };
    Ok(SecretScope { namespace, graph, name }.open(keys, id, ciphertext).is_ok())
}
