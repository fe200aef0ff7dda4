//! The cipher of secrets, XChaCha20-Poly1305, under one key.
//!
//! Not here: which key it is (`keyring`), and what a ciphertext is bound to (`secret_cipher`).

use chacha20poly1305::aead::{Aead, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use rand::Rng;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::keyring::{KEY_BYTES, KeyId};

/// The length of a nonce, which precedes its ciphertext, in bytes.
const NONCE_BYTES: usize = 24;

/// A key. Each use has a key of its own, derived from `master`.
#[derive(Clone)]
pub(super) struct Key {
    pub master: Zeroizing<[u8; KEY_BYTES]>,
    encryption_key: Zeroizing<[u8; KEY_BYTES]>,
    pub id: KeyId,
}

impl Key {
    pub fn new(master: &[u8; KEY_BYTES]) -> Key {
        let mut id = hex::encode(derived(master, "exosphere key id"));
        id.truncate(16);
        let encryption_key = Zeroizing::new(derived(master, "exosphere secrets"));
        Key { master: Zeroizing::new(*master), encryption_key, id: KeyId(id) }
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.encryption_key).into())
    }

    /// Encrypts a text, bound to `associated_data`. The nonce precedes the ciphertext.
    #[expect(
        clippy::disallowed_methods,
        reason = "a nonce must not be foreseen, not even by a test"
    )]
    pub fn encrypt(&self, associated_data: &[u8], text: &str) -> Option<Vec<u8>> {
        let mut ciphertext = vec![0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut ciphertext);
        let nonce = XNonce::try_from(&ciphertext[..]).ok()?;
        let payload = Payload { msg: text.as_bytes(), aad: associated_data };
        ciphertext.extend(self.cipher().encrypt(&nonce, payload).ok()?);
        Some(ciphertext)
    }

    /// Decrypts what [`encrypt`](Self::encrypt) made. Returns `None` if it was altered, or encrypted
    /// under another key or with other associated data.
    pub fn decrypt(&self, associated_data: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = ciphertext.split_at_checked(NONCE_BYTES)?;
        let nonce = XNonce::try_from(nonce).ok()?;
        self.cipher().decrypt(&nonce, Payload { msg: body, aad: associated_data }).ok()
    }
}

/// Derives the key for one use: the HMAC-SHA-256 of the use's name.
fn derived(master: &[u8; KEY_BYTES], label: &str) -> [u8; KEY_BYTES] {
    // HMAC takes a key of any length, so this never fails.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(master) else { return *master };
    mac.update(label.as_bytes());
    mac.finalize().into_bytes().into()
}
