//! Encrypts secrets under one of the host's keys. Each ciphertext is bound to its place, so that
//! one secret cannot be passed off as another.
//!
//! Not here: the algorithm (`algorithm`), and reencryption under another key (`reencrypt`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use exosphere_domain::ids::Name;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::keyring::{KeyId, Keyring, KeyringError};

/// The key source, from which the keyring is read again.
type Source = Box<dyn Fn() -> Result<Keyring, String> + Send + Sync>;

/// The shortest interval between two reads of the key source.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// Encrypts and decrypts secrets. An unknown key is looked for in the key source, because a
/// rotation puts new keys there while hosts run.
pub struct SecretCipher {
    keys: RwLock<Arc<Keyring>>,
    source: Option<Arc<Source>>,
    /// The time of the last read of the key source.
    last_reload: Mutex<Option<Instant>>,
}

/// Shows only the key ids.
impl fmt::Debug for SecretCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretCipher").field(&self.keys()).finish()
    }
}

/// A secret that cannot be decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    /// The key is not in the keyring.
    #[error(
        "the secret {scope} is encrypted with the key {key}, which this host does not have: give \
         it that key, too, or apply the graph again with the secret set"
    )]
    Unknown {
        /// The namespace, graph and name of the secret.
        scope: String,
        /// The id of the missing key.
        key: KeyId,
    },
    /// Authentication failed although the key is present: the secret was altered or moved.
    #[error(
        "the secret {0} was changed or moved in the database: apply its graph again with the secret set"
    )]
    Broken(String),
}

impl SecretCipher {
    /// Creates a cipher with these keys.
    pub fn new(keys: impl Into<Keyring>) -> Self {
        let keys = RwLock::new(Arc::new(keys.into()));
        SecretCipher { keys, source: None, last_reload: Mutex::default() }
    }

    /// Adds a key source, which is read again when a key is missing.
    pub fn with_reload(
        mut self,
        source: impl Fn() -> Result<Keyring, String> + Send + Sync + 'static,
    ) -> Self {
        self.source = Some(Arc::new(Box::new(source)));
        self
    }

    /// Returns the current keyring.
    pub(crate) fn keys(&self) -> Arc<Keyring> {
        self.keys.read().clone()
    }

    /// Replaces the keyring for all clones.
    pub(crate) fn replace_keys(&self, keys: Keyring) {
        *self.keys.write() = Arc::new(keys);
    }

    /// Reads the key source again and returns the resulting keyring. Concurrent callers share a
    /// result, and two reads are at least [`RELOAD_INTERVAL`] apart: rows of the database must
    /// not cause a file read each.
    pub(crate) async fn reload(&self) -> Arc<Keyring> {
        let Some(source) = self.source.clone() else { return self.keys() };
        let now = Instant::now();
        let mut last_reload = self.last_reload.lock().await;
        if last_reload.is_none_or(|last| last < now) {
            if let Some(last) = *last_reload {
                tokio::time::sleep_until(last + RELOAD_INTERVAL).await;
            }
            // A caller that arrives from here on may know of keys that this read misses.
            *last_reload = Some(Instant::now());
            match tokio::task::spawn_blocking(move || source()).await {
                Ok(Ok(keys)) => self.replace_keys(keys),
                Ok(Err(cause)) => tracing::warn!(cause, "the keys cannot be read again"),
                Err(error) => tracing::warn!(%error, "the keys cannot be read again"),
            }
        }
        self.keys()
    }

    /// Decrypts a secret under the key with this id, after looking for the key if it is unknown.
    pub(crate) async fn open(
        &self,
        scope: &SecretScope<'_>,
        id: &KeyId,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<String>, DecryptError> {
        let mut keys = self.keys();
        if !keys.can_decrypt(id) {
            keys = self.reload().await;
        }
        scope.open(&keys, id, ciphertext)
    }
}

/// The place of a secret, to which its ciphertext is bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SecretScope<'a> {
    pub namespace: &'a Name,
    pub graph: &'a Name,
    pub name: &'a Name,
}

impl SecretScope<'_> {
    /// Returns the place as bytes, the associated data of the encryption. Names contain no NUL.
    fn associated_data(&self) -> Vec<u8> {
        [self.namespace, self.graph, self.name].map(Name::as_str).join("\0").into_bytes()
    }

    /// Encrypts a secret for this place.
    pub(crate) fn encrypt(&self, keys: &Keyring, value: &str) -> Result<Vec<u8>, DecryptError> {
        keys.encrypt(&self.associated_data(), value)
            .map_err(|_| DecryptError::Broken(self.to_string()))
    }

    /// Decrypts a secret at this place.
    pub(crate) fn open(
        &self,
        keys: &Keyring,
        id: &KeyId,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<String>, DecryptError> {
        keys.decrypt(id, &self.associated_data(), ciphertext).map_err(|cause| match cause {
            KeyringError::Unknown => {
                DecryptError::Unknown { scope: self.to_string(), key: id.clone() }
            }
            KeyringError::Broken => DecryptError::Broken(self.to_string()),
        })
    }
}

impl fmt::Display for SecretScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the graph {} in {}", self.name, self.graph, self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_secret_decrypts_at_its_place_only() {
        let [a, b]: [Name; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        let scope = SecretScope { namespace: &a, graph: &a, name: &a };
        let other = SecretScope { namespace: &a, graph: &b, name: &a };
        let keys = Keyring::from(&[1; 32]);
        let ciphertext = scope.encrypt(&keys, "hush").unwrap();
        assert_eq!(*scope.open(&keys, keys.current(), &ciphertext).unwrap(), "hush");
        let cause = other.open(&keys, keys.current(), &ciphertext).unwrap_err();
        assert_eq!(cause, DecryptError::Broken("a of the graph b in a".into()));
        assert!(!format!("{:?}", SecretCipher::new(keys)).contains('\u{1}'));
    }

    /// Rows with unknown keys must not make the cipher read the source without end.
    #[tokio::test]
    async fn unknown_keys_reload_the_source_rarely() {
        let name: Name = "a".parse().unwrap();
        let scope = SecretScope { namespace: &name, graph: &name, name: &name };
        let (old, new) = (Keyring::from(&[1; 32]), Keyring::from(&[2; 32]));
        let loads = Arc::new(AtomicUsize::new(0));
        let (counted, file) = (loads.clone(), new.with_older(&old));
        let cipher = SecretCipher::new(old.clone()).with_reload(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(file.clone())
        });
        let ciphertext = scope.encrypt(&old, "hush").unwrap();
        assert!(cipher.open(&scope, old.current(), &ciphertext).await.is_ok());
        assert_eq!(loads.load(Ordering::Relaxed), 0, "it had the key");
        let ciphertext = scope.encrypt(&new, "hush").unwrap();
        assert_eq!(*cipher.open(&scope, new.current(), &ciphertext).await.unwrap(), "hush");
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        let started = Instant::now();
        let removed_keys = Keyring::from(&[3; 32]);
        let all = (0..100).map(|_| cipher.open(&scope, removed_keys.current(), &ciphertext));
        for end in futures::future::join_all(all).await {
            assert!(matches!(end, Err(DecryptError::Unknown { .. })));
        }
        let times = loads.load(Ordering::Relaxed);
        assert!(times <= 3 && started.elapsed() < Duration::from_secs(3), "asked {times} times");
    }
}
