//! Secrets at rest: sealed by XChaCha20-Poly1305 under the host's key, each
//! bound to its place, so that one cannot be passed off as another.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use exosphere_domain::ids::Name;
use rand::Rng;

/// Bytes of a nonce, which stands before what it sealed.
const NONCE: usize = 24;

/// Seals and opens secrets.
pub struct Vault {
    cipher: XChaCha20Poly1305,
}

/// A secret that this key does not open: another key sealed it, or it was
/// changed or moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the secret {name} cannot be opened with this host's key; apply its graph again with the secret set"
)]
pub struct Sealed {
    name: String,
}

impl Vault {
    /// A vault under a key of 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        Vault { cipher: XChaCha20Poly1305::new(key.into()) }
    }

    /// Seals a secret for its place.
    #[expect(
        clippy::disallowed_methods,
        reason = "a nonce must not be foreseen, not even by a test"
    )]
    pub(crate) fn seal(&self, place: &SecretPlace<'_>, value: &str) -> Result<Vec<u8>, Sealed> {
        let mut sealed = vec![0; NONCE];
        rand::rng().fill_bytes(&mut sealed);
        let bound = place.bound();
        let payload = Payload { msg: value.as_bytes(), aad: &bound };
        let nonce = XNonce::try_from(&sealed[..]).map_err(|_| place.refused())?;
        sealed.extend(self.cipher.encrypt(&nonce, payload).map_err(|_| place.refused())?);
        Ok(sealed)
    }

    /// Opens a secret at its place.
    pub(crate) fn open(&self, place: &SecretPlace<'_>, sealed: &[u8]) -> Result<String, Sealed> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or_else(|| place.refused())?;
        let nonce = XNonce::try_from(nonce).map_err(|_| place.refused())?;
        let bound = place.bound();
        let payload = Payload { msg: sealed, aad: &bound };
        let value = self.cipher.decrypt(&nonce, payload).map_err(|_| place.refused())?;
        String::from_utf8(value).map_err(|_| place.refused())
    }
}

/// Where a secret belongs.
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

    fn refused(&self) -> Sealed {
        Sealed { name: self.name.to_string() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_secret_opens_at_its_place_under_its_key_and_nowhere_else() {
        let [a, b]: [Name; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        let place = SecretPlace { namespace: &a, graph: &a, name: &a };
        let other = SecretPlace { namespace: &a, graph: &b, name: &a };
        let vault = Vault::new(&[1; 32]);
        let mut sealed = vault.seal(&place, "hush").unwrap();
        assert!(!sealed.windows(4).any(|window| window == b"hush"));
        assert_ne!(sealed, vault.seal(&place, "hush").unwrap(), "nonces are fresh");
        assert_eq!(vault.open(&place, &sealed).unwrap(), "hush");
        assert!(vault.open(&other, &sealed).is_err());
        assert!(Vault::new(&[2; 32]).open(&place, &sealed).is_err());
        sealed[30] ^= 1;
        assert!(vault.open(&place, &sealed).is_err());
        assert!(vault.open(&place, &[]).is_err());
    }
}
