//! The text of an API key: `exo_`, an id of 12 characters, `_`, a secret of 32 characters, and a
//! checksum of 6. All of them are base62. The checksum lets a host refuse a mistyped key, and a
//! scanner of source code recognize a real one, without a database.
//!
//! Not here: what a key allows (`access`), and the comparison of keys (`exosphere-orchestrator`).

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::ids::Digest;

/// The beginning of every key.
pub const PREFIX: &str = "exo_";

/// The number of characters of an id: 71 bits.
pub const ID_CHARS: usize = 12;

/// The number of characters of a secret: 190 bits, so a fast digest is enough to store it.
const SECRET_CHARS: usize = 32;

/// The number of characters of a checksum: 62^6 is more than 2^32.
const CHECKSUM_CHARS: usize = 6;

/// The number of characters of a key.
pub const KEY_CHARS: usize = PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The number of random bytes taken at a time.
const RANDOM_BYTES: usize = 64;

/// The id of an API key. It is not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiKeyId([u8; ID_CHARS]);

impl ApiKeyId {
    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        // All characters are base62.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not the id of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the id of a key is {ID_CHARS} letters and digits: the part between exo_ and the next _")]
pub struct BadApiKeyId;

impl FromStr for ApiKeyId {
    type Err = BadApiKeyId;

    fn from_str(text: &str) -> Result<Self, BadApiKeyId> {
        let id: [u8; ID_CHARS] = text.as_bytes().try_into().map_err(|_| BadApiKeyId)?;
        id.iter().all(u8::is_ascii_alphanumeric).then_some(ApiKeyId(id)).ok_or(BadApiKeyId)
    }
}

/// An API key. Its memory is overwritten on drop.
pub struct ApiKey {
    id: ApiKeyId,
    text: Zeroizing<String>,
}

/// A text that is not an API key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedKey {
    /// The text has another form.
    #[error("an API key has {KEY_CHARS} characters and begins with {PREFIX}")]
    Form,
    /// The checksum does not match.
    #[error("the checksum of this key does not match; it is cut or mistyped")]
    Checksum,
}

impl ApiKey {
    /// Generates a key. `fill` fills a buffer with random bytes of a cryptographic source.
    pub fn generate(mut fill: impl FnMut(&mut [u8])) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(KEY_CHARS));
        text.push_str(PREFIX);
        let mut random = Zeroizing::new([0; RANDOM_BYTES]);
        let mut push_random = |text: &mut String, count: usize| {
            let end = text.len() + count;
            while text.len() < end {
                fill(&mut *random);
                // The last bytes are left out, so that every character is equally likely.
                let usable = random.iter().filter(|byte| **byte < 4 * 62);
                let chars = usable.map(|byte| char::from(BASE62[usize::from(byte % 62)]));
                text.extend(chars.take(end - text.len()));
            }
        };
        push_random(&mut text, ID_CHARS);
        text.push('_');
        push_random(&mut text, SECRET_CHARS);
        let sum = checksum(&text);
        text.extend(sum.iter().map(|byte| char::from(*byte)));
        let mut id = [0; ID_CHARS];
        id.copy_from_slice(&text.as_bytes()[PREFIX.len()..PREFIX.len() + ID_CHARS]);
        ApiKey { id: ApiKeyId(id), text }
    }

    /// Returns the id of the key.
    pub fn id(&self) -> ApiKeyId {
        self.id
    }

    /// Returns the whole key. It is shown once, to the person who created it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Returns the digest of the secret, which is all that a database knows of it.
    pub fn digest(&self) -> Digest {
        let begin = PREFIX.len() + ID_CHARS + 1;
        Digest::from_content(&self.text.as_bytes()[begin..begin + SECRET_CHARS])
    }
}

impl FromStr for ApiKey {
    type Err = MalformedKey;

    fn from_str(text: &str) -> Result<Self, MalformedKey> {
        let rest = text.strip_prefix(PREFIX).ok_or(MalformedKey::Form)?;
        if text.len() != KEY_CHARS || !text.is_ascii() {
            return Err(MalformedKey::Form);
        }
        let (id, rest) = rest.split_at(ID_CHARS);
        let id = id.parse().map_err(|_| MalformedKey::Form)?;
        let secret = rest.strip_prefix('_').ok_or(MalformedKey::Form)?;
        if !secret.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(MalformedKey::Form);
        }
        let (checked, sum) = text.split_at(KEY_CHARS - CHECKSUM_CHARS);
        if checksum(checked) != sum.as_bytes() {
            return Err(MalformedKey::Checksum);
        }
        Ok(ApiKey { id, text: Zeroizing::new(text.to_owned()) })
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.id)
    }
}

/// Computes the checksum of a key without it: CRC-32 (ISO-HDLC) in base62, most significant
/// first.
fn checksum(text: &str) -> [u8; CHECKSUM_CHARS] {
    let mut sum = crc32fast::hash(text.as_bytes());
    let mut chars = [0; CHECKSUM_CHARS];
    for char in chars.iter_mut().rev() {
        *char = BASE62[(sum % 62) as usize];
        sum /= 62;
    }
    chars
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A key whose random bytes count up from `seed`.
    fn key(seed: u8) -> ApiKey {
        let mut next = seed;
        ApiKey::generate(move |bytes| {
            for byte in bytes {
                *byte = next;
                next = next.wrapping_add(37);
            }
        })
    }

    #[test]
    fn the_form_of_a_key_is_stable() {
        let key = key(0);
        assert_eq!(key.expose(), "exo_0bCnOza3eFqR_2dEpQU5gHsTX8jKvWaBmNyZ2dEpQ1c5g1Y21uZ");
        assert_eq!(key.id().as_str(), "0bCnOza3eFqR");
        assert_eq!(key.expose().len(), KEY_CHARS);
        assert!(!format!("{key:?}").contains(&key.expose()[17..]), "{key:?}");
    }

    #[test]
    fn a_generated_key_is_read_back() {
        for seed in 0..=255 {
            let key = key(seed);
            let read: ApiKey = key.expose().parse().unwrap();
            assert_eq!((read.id(), read.digest()), (key.id(), key.digest()));
        }
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let key = key(7);
        for at in 0..KEY_CHARS {
            for other in ["0", "z", "_", "-", "\u{e9}"] {
                let mut text = key.expose().to_owned();
                if text[at..].starts_with(other) {
                    continue;
                }
                text.replace_range(at..=at, other);
                assert!(text.parse::<ApiKey>().is_err(), "{text}");
            }
        }
        for text in ["", "exo_", "exo_\u{e9}", &key.expose()[1..], &format!("{}0", key.expose())] {
            assert!(text.parse::<ApiKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn characters_are_equally_likely() {
        let mut next: u8 = 0;
        let fill = |bytes: &mut [u8]| {
            for byte in bytes {
                (*byte, next) = (next, next.wrapping_add(1));
            }
        };
        let mut fill = fill;
        let mut counts: HashMap<u8, u32> = HashMap::new();
        for _ in 0..62 {
            let key = ApiKey::generate(&mut fill);
            for byte in key.id().as_str().bytes() {
                *counts.entry(byte).or_default() += 1;
            }
        }
        assert!(counts.values().all(|count| *count < 62 * 12 / 10), "{counts:?}");
    }
}
