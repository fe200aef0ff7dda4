//! JSON strings: finding their end, and decoding their escapes.

use super::reader::Stop;

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// Returns the position of the next special byte from `at` on: a quote, a
/// backslash or a control character. Returns the length of the text if there is
/// none.
pub(super) fn next_special(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*chunk);
        // The high bit is set where the byte is 0; exact up to the first such
        // byte.
        let zeros = |word: u64| word.wrapping_sub(LOW_BITS) & !word;
        let control = word.wrapping_sub(LOW_BITS * 0x20) & !word;
        let quote = zeros(word ^ (LOW_BITS * b'"' as u64));
        let backslash = zeros(word ^ (LOW_BITS * b'\\' as u64));
        let found = (control | quote | backslash) & HIGH_BITS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    rest.iter().position(special).map_or(bytes.len(), |found| at + found)
}

/// Decodes the escape whose backslash is at `at`. Returns the character and the
/// position after it.
pub(super) fn escape(bytes: &[u8], at: usize) -> Result<(char, usize), Stop> {
    let letter = bytes.get(at + 1).ok_or(Stop::ended(at + 1))?;
    let decoded = match letter {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode(bytes, at),
        _ => return Err(Stop::syntax(at, "invalid escape in a string")),
    };
    Ok((decoded, at + 2))
}

fn unicode(bytes: &[u8], at: usize) -> Result<(char, usize), Stop> {
    let lone_surrogate = Stop::syntax(at, "lone surrogate in a hex escape of a string");
    let first = hex(bytes, at + 2)?;
    if !(0xD800..0xE000).contains(&first) {
        return char::from_u32(first).map(|c| (c, at + 6)).ok_or(lone_surrogate);
    }
    if first >= 0xDC00 || bytes.get(at + 6..at + 8) != Some(&br"\u"[..]) {
        return Err(lone_surrogate);
    }
    let second = hex(bytes, at + 8)?;
    if !(0xDC00..0xE000).contains(&second) {
        return Err(lone_surrogate);
    }
    let both = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    char::from_u32(both).map(|c| (c, at + 12)).ok_or(lone_surrogate)
}

fn hex(bytes: &[u8], at: usize) -> Result<u32, Stop> {
    let digits = bytes.get(at..at + 4).ok_or(Stop::ended(bytes.len()))?;
    digits.iter().try_fold(0, |number, digit| {
        let digit = char::from(*digit).to_digit(16);
        let digit = digit.ok_or(Stop::syntax(at, "invalid hex escape in a string"))?;
        Ok(number * 16 + digit)
    })
}
