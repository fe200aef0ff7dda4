//! The path of an HTTP request, parsed strictly. The server must see the same
//! path, no matter how often it decodes the path or how it normalises it.
//!
//! So a rule for `/v1/` allows `/v1/`, and not `/v1/%2e%2e/`.

use super::host::cut;
use super::lookalike::{ascii_equivalent, is_unseen};

/// The longest path with its query, in bytes.
pub const MAX_PATH_BYTES: usize = 8 * 1024;

/// The maximum number of times that a path is decoded before it is refused. No honest path is
/// encoded more than once or twice.
const MAX_DECODINGS: usize = 3;

/// The reason why a text is not a valid path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// The path is too long.
    #[error("a path with its query has at most {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// The path does not begin with a slash: an absolute address, or `*`.
    #[error("the path {0:?} does not begin with a '/'")]
    NotAbsolute(String),
    /// The path has characters that are not allowed in a path.
    #[error("the path {0:?} has characters that must be percent-encoded, or must not be there")]
    Characters(String),
    /// A `%` is not followed by two hexadecimal digits.
    #[error("the path {0:?} has a '%' without two hexadecimal digits behind it")]
    Percent(String),
    /// The path has segments that a server may take for an empty, a `.` or a `..` segment.
    #[error(
        "the path {0:?} has empty or dot segments, or backslashes, perhaps encoded; write it plainly"
    )]
    Segments(String),
    /// The path has bytes that are not UTF-8 once decoded. Some parsers take an
    /// overlong form for the letter that it hides.
    #[error(
        "the path {0:?} has bytes that are not UTF-8 once they are decoded; encode it as UTF-8"
    )]
    NotUtf8(String),
    /// The path has a letter that some servers turn into one with a special
    /// meaning.
    #[error(
        "the path {0:?} has {1:?}, which some servers take for {2:?}; write it plainly, or use another letter"
    )]
    Lookalike(String, char, char),
}

/// Checks that a path, without its query, has only one meaning.
///
/// # Errors
/// If it is not a plain absolute path; see [`BadPath`].
pub fn check_path(path: &str) -> Result<(), BadPath> {
    if path.len() > MAX_PATH_BYTES {
        return Err(BadPath::TooLong);
    }
    if !path.starts_with('/') {
        return Err(BadPath::NotAbsolute(cut(path)));
    }
    let is_invalid = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#');
    if path.bytes().any(is_invalid) {
        return Err(BadPath::Characters(cut(path)));
    }
    let mut current = path.as_bytes().to_vec();
    for round in 0..=MAX_DECODINGS {
        let text = std::str::from_utf8(&current).map_err(|_| BadPath::NotUtf8(cut(path)))?;
        check_letters(text, path)?;
        check_segments(text).map_err(|()| BadPath::Segments(cut(path)))?;
        let (decoded, is_clean) = decode(&current);
        if round == 0 && !is_clean {
            return Err(BadPath::Percent(cut(path)));
        }
        if decoded == current {
            return Ok(());
        }
        if decoded.iter().any(u8::is_ascii_control) {
            return Err(BadPath::Characters(cut(path)));
        }
        current = decoded;
    }
    Err(BadPath::Segments(cut(path)))
}

/// Refuses letters that a server may turn into one of `/ \ ? # % ;`.
fn check_letters(text: &str, path: &str) -> Result<(), BadPath> {
    let lookalike = |letter: char| Some((letter, ascii_equivalent(letter)?));
    let mut found = text.chars().filter(|letter| !letter.is_ascii()).filter_map(lookalike);
    match found.find(|(_, ascii)| ascii.chars().all(|c| c != '.')) {
        None => Ok(()),
        Some((letter, ascii)) => {
            let is_special = |c: &char| r"/\?#%;".contains(*c);
            let ascii = ascii.chars().find(is_special).unwrap_or(letter);
            Err(BadPath::Lookalike(cut(path), letter, ascii))
        }
    }
}

/// Refuses segments that servers normalise: `//`, `.`, `..`, and backslashes.
/// `..` is refused in other spellings, too: `..;x`, because some servers drop
/// the text after the semicolon; `.. ` and `..+`, because some trim blanks; and
/// dots of other scripts.
fn check_segments(path: &str) -> Result<(), ()> {
    if path.contains('\\') {
        return Err(());
    }
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let name = segment.split([';', '?', '#']).next().unwrap_or_default();
        if is_normalized_away(name) || (segment.is_empty() && !is_last) {
            return Err(());
        }
    }
    Ok(())
}

/// Returns whether a server may take a segment for a dot segment or an empty
/// one. Servers trim blanks around or between dots, and drop invisible letters.
fn is_normalized_away(name: &str) -> bool {
    // A form encodes a blank as a plus.
    let is_blank = |letter: char| letter.is_whitespace() || letter == '+' || is_unseen(letter);
    let is_dots = |letter: char| {
        letter == '.' || ascii_equivalent(letter).is_some_and(|dots| dots.starts_with('.'))
    };
    if name.is_empty() || !name.chars().all(|letter| is_blank(letter) || is_dots(letter)) {
        return false;
    }
    // Three or more dots are a name, if they are plain.
    let is_plain = name.bytes().all(|byte| byte == b'.');
    !is_plain || name.len() <= 2
}

/// Decodes percent-encodings once. Also returns whether every `%` began a valid encoding;
/// invalid ones stay as they are.
fn decode(path: &[u8]) -> (Vec<u8>, bool) {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(path.len());
    let (mut at, mut is_clean) = (0, true);
    while let Some(byte) = path.get(at) {
        let digits = digit(path.get(at + 1)).zip(digit(path.get(at + 2)));
        let value = digits.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match (byte, value) {
            (b'%', Some(value)) => {
                decoded.push(value);
                at += 3;
                continue;
            }
            (b'%', None) => is_clean = false,
            _ => {}
        }
        decoded.push(*byte);
        at += 1;
    }
    (decoded, is_clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_pass() {
        for path in [
            "/",
            "/v1",
            "/v1/",
            "/v1/a.b/c..d",
            "/...",
            "/v1/100%25",
            "/a%20b/%c3%a4",
            "/~u/a;b=c",
            "/projects/group%2Fproject",
            "/v1/file%2ejson",
            "/@a:b,c!$&'()*+=",
            "/a/..b",
            "/%41",
            "/a/%20b/b%20/..%20b",
            "/%e6%96%87%e4%bb%b6/%f0%9f%98%80",
            // A letter that some servers take for a dot, within a name.
            "/a%ef%bc%8eb",
            "/wait%e2%80%a6",
        ] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        assert_eq!(check_path(&format!("/{}", "x".repeat(MAX_PATH_BYTES - 1))), Ok(()));
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for path in [
            "//",
            "//host/x",
            "/a//b",
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/a/%2e",
            "/%2e%2e/a",
            "/.%2E/a",
            "/%2e./a",
            "/a/..%2fb",
            "/a/..%5cb",
            "/a\\b",
            "/a%5Cb",
            "/a/%2f",
            "/a%2f%2fb",
            "/%252e%252e/a",
            "/a/%25252e%25252e",
            "/%25%32%65./a",
            "/a/..;/b",
            "/a/..;x=1",
            "/a/.;/b",
            "/a/..%3b/b",
            "/%2525252525252e",
            // Trimmed by some servers: blanks of ASCII, of other scripts, and
            // invisible letters.
            "/a/%20..",
            "/a/..%20",
            "/a/%20../b",
            "/a/..%20/b",
            "/a/.%20./b",
            "/a/..%20;x/b",
            "/a/%2520..",
            "/a/%20/b",
            "/a/%20%20",
            "/a/...%20/b",
            "/a/..%c2%a0/b",
            "/a/%e3%80%80../b",
            "/a/.%e2%80%8b./b",
            "/a/%ef%bb%bf../b",
            "/a/.%c2%ad./b",
            // Dots of other scripts.
            "/a/%ef%bc%8e%ef%bc%8e/b",
            "/a/.%ef%bc%8e/b",
            "/a/%ef%bc%8e",
            "/a/%ef%b9%92%ef%b9%92",
            "/a/%ef%b8%92%ef%b8%92",
            "/a/..%3fa",
            "/a/..%23/b",
            "/a/..+",
            "/a/+../b",
            "/a/%e2%80%a4%e2%80%a4/b",
            "/a/%e2%80%a5/b",
            "/a/%e3%80%82%ef%bd%a1/b",
            "/a/%25ef%25bc%258e./b",
        ] {
            assert!(matches!(check_path(path), Err(BadPath::Segments(_))), "{path}");
        }
        // Overlong forms of '.' and '/', and bytes that are not UTF-8 at all.
        for path in [
            "/a/%c0%ae%c0%ae/b",
            "/a/%c0%ae./b",
            "/a/%e0%80%ae%e0%80%ae/b",
            "/a/%f0%80%80%ae/b",
            "/a/..%c0%afb",
            "/a%c1%9cb",
            "/a/%25c0%25ae/b",
            "/a/%e4",
            "/a/%ed%a0%80",
        ] {
            assert!(matches!(check_path(path), Err(BadPath::NotUtf8(_))), "{path}");
        }
        // '/', '\\', '%', ';', '?' and '#' of other scripts.
        for path in [
            "/a/..%ef%bc%8fb",
            "/a%e2%81%84b",
            "/a%e2%88%95b",
            "/a%ef%bc%bcb",
            "/a%ef%b9%a8b",
            "/a%c2%a5b",
            "/a/..%ef%bc%9bx/b",
            "/%ef%bc%852e",
            "/a%ef%bc%9fb",
            "/a%ef%bc%83b",
            "/%e2%84%80",
            "/a%25ef%25bc%258fb",
        ] {
            assert!(matches!(check_path(path), Err(BadPath::Lookalike(..))), "{path}");
        }
        for path in ["", "*", "a", "http://host/", "host:443", "?a"] {
            assert!(matches!(check_path(path), Err(BadPath::NotAbsolute(_))), "{path}");
        }
        for path in
            ["/a b", "/a\tb", "/a\r\nHost: x", "/a\0", "/ä", "/a?b", "/a#b", "/a%00", "/%0d%0a"]
        {
            assert!(matches!(check_path(path), Err(BadPath::Characters(_))), "{path}");
        }
        for path in ["/%", "/%2", "/%zz", "/a%2/b"] {
            assert!(matches!(check_path(path), Err(BadPath::Percent(_))), "{path}");
        }
        let long = format!("/{}", "x".repeat(MAX_PATH_BYTES));
        assert_eq!(check_path(&long), Err(BadPath::TooLong));
    }
}
