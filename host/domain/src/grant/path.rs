//! The path of a request, read strictly: a path is what it looks like to the
//! server too, however often that decodes it and whatever it tidies up.
//!
//! So that a rule for `/v1/` is one for `/v1/`, and not for `/v1/%2e%2e/`.

use super::host::cut;

/// The longest path with its query, in bytes.
pub const MAX_PATH_BYTES: usize = 8 * 1024;

/// How often a path is decoded before it is given up. Nobody encodes an honest
/// path so often.
const MAX_DECODINGS: usize = 3;

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It is too long.
    #[error("a path with its query has at most {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// It does not begin with a slash: an absolute address, or `*`.
    #[error("the path {0:?} does not begin with a '/'")]
    NotAbsolute(String),
    /// It has characters that are not allowed in one.
    #[error("the path {0:?} has characters that must be percent-encoded, or must not be there")]
    Characters(String),
    /// A `%` is followed by something else than two digits.
    #[error("the path {0:?} has a '%' without two hexadecimal digits behind it")]
    Percent(String),
    /// It has segments that a server may take for none or for a step up.
    #[error(
        "the path {0:?} has empty or dot segments, or backslashes, perhaps encoded; write it plainly"
    )]
    Segments(String),
}

/// Whether a path, without its query, has one meaning only.
///
/// # Errors
/// If it is no plain absolute path; see [`BadPath`].
pub fn check_path(path: &str) -> Result<(), BadPath> {
    if path.len() > MAX_PATH_BYTES {
        return Err(BadPath::TooLong);
    }
    if !path.starts_with('/') {
        return Err(BadPath::NotAbsolute(cut(path)));
    }
    let is_wrong = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#');
    if path.bytes().any(is_wrong) {
        return Err(BadPath::Characters(cut(path)));
    }
    let mut now = path.as_bytes().to_vec();
    for round in 0..=MAX_DECODINGS {
        check_segments(&now).map_err(|()| BadPath::Segments(cut(path)))?;
        let (decoded, is_clean) = decode(&now);
        if round == 0 && !is_clean {
            return Err(BadPath::Percent(cut(path)));
        }
        if decoded == now {
            return Ok(());
        }
        if decoded.iter().any(u8::is_ascii_control) {
            return Err(BadPath::Characters(cut(path)));
        }
        now = decoded;
    }
    Err(BadPath::Segments(cut(path)))
}

/// Refuses what servers tidy up: `//`, `.`, `..` (also as `..;x`, from which
/// some cut off what is behind the semicolon), and backslashes.
fn check_segments(path: &[u8]) -> Result<(), ()> {
    if path.contains(&b'\\') {
        return Err(());
    }
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        if matches!(name, b"." | b"..") || (segment.is_empty() && !is_last) {
            return Err(());
        }
    }
    Ok(())
}

/// The bytes that a percent-encoding stands for, and whether each `%` began
/// one. Those that did not stay.
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
        ] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        assert_eq!(check_path(&format!("/{}", "x".repeat(MAX_PATH_BYTES - 1))), Ok(()));
    }

    #[test]
    fn paths_that_mean_something_else_do_not() {
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
        ] {
            assert!(matches!(check_path(path), Err(BadPath::Segments(_))), "{path}");
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
