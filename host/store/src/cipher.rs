//! Encrypts secrets, each under one of the host's keys and bound to its place, so that
//! one secret cannot be passed off as another.
//!
//! Not here: the algorithm (`keyring`), and re-encryption under another key
//! (`reencrypt`).

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use exosphere_domain::ids::Name;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::keyring::{KeyId, Keyring, Unopened};

/// Where the keys are read again.
type Source = Box<dyn Fn() -> Result<Keyring, String> + Send + Sync>;

/// The source is asked again after so long at the earliest.
const PAUSE: Duration = Duration::from_secs(1);

/// Seals and opens secrets. Keys that it lacks are looked for where it has its
/// own from: a rotation puts new ones there while hosts run.
pub struct SecretCipher {
    keys: RwLock<Arc<Keyring>>,
    source: Option<Arc<Source>>,
    /// When the source was asked last.
    asked: Mutex<Option<Instant>>,
}

/// Shows the ids of the keys alone.
impl fmt::Debug for SecretCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretCipher").field(&self.keys()).finish()
    }
}

/// A secret that cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Sealed {
    /// By lack of a key.
    #[error(
        "the secret {place} is sealed under the key {key}, which this host does not have: give it that key, too, or apply the graph again with the secret set"
    )]
    Unknown {
        /// Whose secret it is.
        place: String,
        /// The key.
        key: KeyId,
    },
    /// Though the key is there.
    #[error(
        "the secret {0} was changed or moved in the database: apply its graph again with the secret set"
    )]
    Broken(String),
}

impl SecretCipher {
    /// A vault with these keys.
    pub fn new(keys: impl Into<Keyring>) -> Self {
        let keys = RwLock::new(Arc::new(keys.into()));
        SecretCipher { keys, source: None, asked: Mutex::default() }
    }

    /// The same, which asks here for a key that it lacks.
    pub fn asking(
        mut self,
        source: impl Fn() -> Result<Keyring, String> + Send + Sync + 'static,
    ) -> Self {
        self.source = Some(Arc::new(Box::new(source)));
        self
    }

    /// The keys as they are now.
    pub(crate) fn keys(&self) -> Arc<Keyring> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes other keys instead.
    pub(crate) fn take(&self, keys: Keyring) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Asks the source for its keys, and gives what the vault has then. Those
    /// who wait together share an answer, and none is asked for within [`PAUSE`]
    /// of another: what is in the database must not make us read a file as often
    /// as it likes.
    pub(crate) async fn ask(&self) -> Arc<Keyring> {
        let Some(source) = self.source.clone() else { return self.keys() };
        let came = Instant::now();
        let mut asked = self.asked.lock().await;
        if asked.is_none_or(|last| last < came) {
            if let Some(last) = *asked {
                tokio::time::sleep_until(last + PAUSE).await;
            }
            // Who comes from now on may know of keys that this answer lacks.
            *asked = Some(Instant::now());
            match tokio::task::spawn_blocking(move || source()).await {
                Ok(Ok(keys)) => self.take(keys),
                Ok(Err(why)) => tracing::warn!(why, "the keys cannot be read again"),
                Err(error) => tracing::warn!(%error, "the keys cannot be read again"),
            }
        }
        self.keys()
    }

    /// Opens what the key of this id has sealed; looks for the key first if it
    /// is unknown.
    pub(crate) async fn open(
        &self,
        place: &SecretPlace<'_>,
        id: &KeyId,
        sealed: &[u8],
    ) -> Result<Zeroizing<String>, Sealed> {
        let mut keys = self.keys();
        if !keys.may_open(id) {
            keys = self.ask().await;
        }
        place.open(&keys, id, sealed)
    }
}

/// Where a secret belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SecretPlace<'a> {
    pub namespace: &'a Name,
    pub graph: &'a Name,
    pub name: &'a Name,
}

impl SecretPlace<'_> {
    /// The place as bytes. Names have no NUL in them.
    fn bound(&self) -> Vec<u8> {
        [self.namespace, self.graph, self.name].map(Name::as_str).join("\0").into_bytes()
    }

    /// Seals a secret for this place.
    pub(crate) fn seal(&self, keys: &Keyring, value: &str) -> Result<Vec<u8>, Sealed> {
        keys.seal(&self.bound(), value).map_err(|_| Sealed::Broken(self.to_string()))
    }

    /// Opens a secret at this place.
    pub(crate) fn open(
        &self,
        keys: &Keyring,
        id: &KeyId,
        sealed: &[u8],
    ) -> Result<Zeroizing<String>, Sealed> {
        keys.open(id, &self.bound(), sealed).map_err(|why| match why {
            Unopened::Unknown => Sealed::Unknown { place: self.to_string(), key: id.clone() },
            Unopened::Broken => Sealed::Broken(self.to_string()),
        })
    }
}

impl fmt::Display for SecretPlace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the graph {} in {}", self.name, self.graph, self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_secret_opens_at_its_place_alone() {
        let [a, b]: [Name; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        let place = SecretPlace { namespace: &a, graph: &a, name: &a };
        let other = SecretPlace { namespace: &a, graph: &b, name: &a };
        let keys = Keyring::from(&[1; 32]);
        let sealed = place.seal(&keys, "hush").unwrap();
        assert_eq!(*place.open(&keys, keys.current(), &sealed).unwrap(), "hush");
        let why = other.open(&keys, keys.current(), &sealed).unwrap_err();
        assert_eq!(why, Sealed::Broken("a of the graph b in a".into()));
        assert!(!format!("{:?}", SecretCipher::new(keys)).contains('\u{1}'));
    }

    /// Rows of keys that there are not must not make it ask without end.
    #[tokio::test]
    async fn it_asks_for_unknown_keys_and_not_too_often() {
        let name: Name = "a".parse().unwrap();
        let place = SecretPlace { namespace: &name, graph: &name, name: &name };
        let (old, new) = (Keyring::from(&[1; 32]), Keyring::from(&[2; 32]));
        let asked = Arc::new(AtomicUsize::new(0));
        let (counted, file) = (asked.clone(), new.before(&old));
        let vault = SecretCipher::new(old.clone()).asking(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(file.clone())
        });
        let sealed = place.seal(&old, "hush").unwrap();
        assert!(vault.open(&place, old.current(), &sealed).await.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 0, "it had the key");
        let sealed = place.seal(&new, "hush").unwrap();
        assert_eq!(*vault.open(&place, new.current(), &sealed).await.unwrap(), "hush");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let begun = Instant::now();
        let gone = Keyring::from(&[3; 32]);
        let all = (0..100).map(|_| vault.open(&place, gone.current(), &sealed));
        for end in futures::future::join_all(all).await {
            assert!(matches!(end, Err(Sealed::Unknown { .. })));
        }
        let times = asked.load(Ordering::Relaxed);
        assert!(times <= 3 && begun.elapsed() < Duration::from_secs(3), "asked {times} times");
    }
}
