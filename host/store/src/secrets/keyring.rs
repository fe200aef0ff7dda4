//! The keys that encrypt secrets: a current key, which encrypts, and any number of older keys,
//! which only decrypt.
//!
//! Not here: the algorithm (`cipher`), where keys are kept, and which secrets are encrypted
//! (`secret_cipher`).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rand::Rng;
use zeroize::Zeroizing;

use super::algorithm::Key;

/// The length of a key, in bytes.
pub const KEY_BYTES: usize = 32;

/// The largest number of keys on a keyring; no operator has backups of more.
pub const MAX_KEYS: usize = 32;

/// The id of a key: the beginning of a hash of it, in hexadecimal. It reveals nothing about the
/// key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(super) String);

impl KeyId {
    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses a key id. It is empty for secrets that were encrypted before keys had ids.
    pub(crate) fn parse(text: &str) -> Option<KeyId> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let fits = text.is_empty() || text.len() == 16 && text.bytes().all(digit);
        fits.then(|| KeyId(text.to_owned()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "without an id" } else { &self.0 })
    }
}

/// An invalid keyring. The error repeats nothing of the input, which may be a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// The number of bytes is wrong.
    #[error("it has {0} bytes, and keys are {KEY_BYTES} bytes each, 1 to {MAX_KEYS} of them")]
    Length(usize),
    /// A text is not a valid key.
    #[error("key {0} of it is neither 64 hexadecimal digits nor 32 bytes in base64")]
    Text(usize),
}

/// One key or more, the current one first. Cheap to clone; the keys are wiped from memory on drop.
#[derive(Clone)]
pub struct Keyring {
    current: Key,
    older: Vec<Key>,
}

/// Shows only the key ids.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

impl From<&[u8; KEY_BYTES]> for Keyring {
    fn from(key: &[u8; KEY_BYTES]) -> Keyring {
        Keyring { current: Key::new(key), older: Vec::new() }
    }
}

/// The reason why a keyring cannot decrypt a ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyringError {
    /// The key is not on the keyring.
    Unknown,
    /// The ciphertext was altered or moved, or is not text.
    Broken,
}

impl Keyring {
    /// Reads a keyring from keys of 32 bytes, one after the other.
    ///
    /// # Errors
    /// [`BadKeys::Length`] if these are not 1 to [`MAX_KEYS`] whole keys.
    pub fn from_bytes(bytes: &[u8]) -> Result<Keyring, BadKeys> {
        let (keys, rest) = bytes.as_chunks::<KEY_BYTES>();
        match keys {
            [current, older @ ..] if rest.is_empty() && keys.len() <= MAX_KEYS => Ok(Keyring {
                current: Key::new(current),
                older: older.iter().map(Key::new).collect(),
            }),
            _ => Err(BadKeys::Length(bytes.len())),
        }
    }

    /// Parses a keyring as operators write it: 64 hexadecimal digits or base64 for each key,
    /// separated by commas.
    ///
    /// # Errors
    /// [`BadKeys::Text`] with the number of the first invalid key, or [`BadKeys::Length`].
    pub fn from_text(text: &str) -> Result<Keyring, BadKeys> {
        let mut keys = Zeroizing::new(Vec::new());
        for (at, word) in text.split(',').enumerate() {
            let key = read_key(word.trim()).ok_or(BadKeys::Text(at + 1))?;
            keys.extend_from_slice(&*key);
        }
        Keyring::from_bytes(&keys)
    }

    /// Returns the keys as bytes, one after the other.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES * (1 + self.older.len())));
        self.keys().for_each(|key| bytes.extend_from_slice(&*key.master));
        bytes
    }

    /// Generates a keyring with one random key.
    #[expect(clippy::disallowed_methods, reason = "a key must not be foreseen, not even by a test")]
    pub fn generate() -> Keyring {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        rand::rng().fill_bytes(&mut *key);
        Keyring::from(&*key)
    }

    /// Returns a keyring with this one's current key, followed by all keys of `older`.
    pub fn with_older(&self, older: &Keyring) -> Keyring {
        Keyring { current: self.current.clone(), older: older.keys().cloned().collect() }
    }

    /// Returns a keyring with only the current key.
    pub fn current_only(&self) -> Keyring {
        Keyring { current: self.current.clone(), older: Vec::new() }
    }

    /// Returns whether the keyring has older keys.
    pub fn has_older(&self) -> bool {
        !self.older.is_empty()
    }

    /// Returns the id of the current key, which encrypts.
    pub fn current(&self) -> &KeyId {
        &self.current.id
    }

    /// Returns the ids of all keys, the current one first.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys().map(|key| &key.id)
    }

    /// Returns whether a key of this ring may decrypt what the key with this id encrypted.
    pub(crate) fn can_decrypt(&self, id: &KeyId) -> bool {
        id.0.is_empty() || self.ids().any(|known| known == id)
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.older)
    }

    /// Encrypts a text, bound to its place, under the current key.
    pub(crate) fn encrypt(
        &self,
        associated_data: &[u8],
        text: &str,
    ) -> Result<Vec<u8>, KeyringError> {
        self.current.encrypt(associated_data, text).ok_or(KeyringError::Broken)
    }

    /// Encrypts a text, bound to its place, under the key with this id.
    pub(crate) fn encrypt_under(
        &self,
        id: &KeyId,
        associated_data: &[u8],
        text: &str,
    ) -> Result<Vec<u8>, KeyringError> {
        self.keys()
            .find(|key| key.id == *id)
            .ok_or(KeyringError::Unknown)?
            .encrypt(associated_data, text)
            .ok_or(KeyringError::Broken)
    }
    /// Decrypts what the key with this id encrypted for a place.
    pub(crate) fn decrypt(
        &self,
        id: &KeyId,
        associated_data: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<String>, KeyringError> {
        if !self.can_decrypt(id) {
            return Err(KeyringError::Unknown);
        }
        let fits = |key: &&Key| id.0.is_empty() || key.id == *id;
        let opened =
            self.keys().filter(fits).find_map(|key| key.decrypt(associated_data, ciphertext));
        let text = String::from_utf8(opened.ok_or(KeyringError::Broken)?);
        text.map(Zeroizing::new).map_err(|_| KeyringError::Broken)
    }
}

fn read_key(word: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if hex::decode_to_slice(word, &mut *key).is_ok() {
        return Some(key);
    }
    let word = word.trim_end_matches('=');
    let read = STANDARD_NO_PAD.decode(word).or_else(|_| URL_SAFE_NO_PAD.decode(word));
    let bytes = Zeroizing::new(read.ok()?);
    key.copy_from_slice(bytes.as_slice().get(..KEY_BYTES).filter(|_| bytes.len() == KEY_BYTES)?);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_decrypt_under_their_own_key_only() {
        let keyring = Keyring::from(&[1; 32]);
        let mut ciphertext = keyring.encrypt(b"here", "hush").unwrap();
        assert!(!ciphertext.windows(4).any(|window| window == b"hush"));
        assert_ne!(ciphertext, keyring.encrypt(b"here", "hush").unwrap(), "nonces are fresh");
        let open = |keyring: &Keyring, id: &KeyId, associated_data: &[u8], ciphertext: &[u8]| {
            keyring.decrypt(id, associated_data, ciphertext).map(|text| text.to_string())
        };
        let id = keyring.current().clone();
        assert_eq!(open(&keyring, &id, b"here", &ciphertext), Ok("hush".into()));
        assert_eq!(open(&keyring, &id, b"there", &ciphertext), Err(KeyringError::Broken));
        assert_eq!(open(&keyring, &id, b"here", &[]), Err(KeyringError::Broken));
        let other = Keyring::from(&[2; 32]);
        assert_eq!(open(&other, &id, b"here", &ciphertext), Err(KeyringError::Unknown));
        let no_key = KeyId::parse("").unwrap();
        assert_eq!(open(&other, &no_key, b"here", &ciphertext), Err(KeyringError::Broken));
        let both = other.with_older(&keyring);
        assert_eq!(open(&both, &id, b"here", &ciphertext), Ok("hush".into()));
        assert_eq!(
            open(&both, &no_key, b"here", &ciphertext),
            Ok("hush".into()),
            "any key is tried"
        );
        assert_eq!(open(&both, other.current(), b"here", &ciphertext), Err(KeyringError::Broken));
        ciphertext[30] ^= 1;
        assert_eq!(open(&keyring, &id, b"here", &ciphertext), Err(KeyringError::Broken));
    }

    #[test]
    fn keyrings_round_trip_and_show_ids_only() {
        let keyring = Keyring::from(&[1; 32]).with_older(&Keyring::from(&[2; 32]));
        let bytes = keyring.to_bytes();
        assert_eq!(bytes.len(), 64);
        let reparsed = Keyring::from_bytes(&bytes).unwrap();
        assert!(reparsed.ids().eq(keyring.ids()) && reparsed.has_older());
        assert_eq!(reparsed.current_only().to_bytes().as_slice(), [1; 32]);
        let shown = format!("{keyring:?}");
        assert!(keyring.ids().all(|id| shown.contains(id.as_str())), "{shown}");
        assert!(keyring.ids().all(|id| KeyId::parse(id.as_str()).as_ref() == Some(id)));
        assert!(!shown.contains("0101") && !shown.contains("1, 1"), "{shown}");
        for length in [0, 1, 31, 33, 32 * (MAX_KEYS + 1)] {
            let bytes = vec![0; length];
            assert_eq!(Keyring::from_bytes(&bytes).unwrap_err(), BadKeys::Length(length));
        }
        assert_ne!(Keyring::generate().current(), Keyring::generate().current());
    }

    #[test]
    fn keys_parse_as_hex_or_base64() {
        let (hex, key) = ("0f".repeat(32), [0x0f; 32]);
        let base64 = "Dw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8";
        for text in [hex.clone(), hex.to_uppercase(), base64.into(), format!(" {base64}= ")] {
            let read = Keyring::from_text(&text).map(|ring| ring.to_bytes().to_vec());
            assert_eq!(read, Ok(key.to_vec()), "{text}");
        }
        let both = Keyring::from_text(&format!("{hex},{}", "ff".repeat(32))).unwrap();
        assert_eq!(both.ids().count(), 2);
        let url = "_".repeat(42) + "8";
        assert_eq!(Keyring::from_text(&url).unwrap().to_bytes().as_slice(), [0xff; 32]);
        for (text, at) in [("", 1), ("hunter2", 1), (&format!("{hex},"), 2), (&hex[1..], 1)] {
            assert_eq!(Keyring::from_text(text).unwrap_err(), BadKeys::Text(at));
        }
    }
}
