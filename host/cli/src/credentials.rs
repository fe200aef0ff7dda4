//! The API key of the client: given, or the admin key that a host on this machine left in its
//! data folder.
//!
//! Not here: the keys that encrypt secrets (`hardening`).

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use exosphere_domain::api_key::{ApiKey, KEY_CHARS};
use exosphere_orchestrator::admin_key_file;
use zeroize::Zeroizing;

use crate::error::Error;

/// The environment variable that may hold the key itself.
pub const KEY_VARIABLE: &str = "EXOSPHERE_KEY";

/// The environment variable of the data folder, as for `serve`.
const DATA_VARIABLE: &str = "EXOSPHERE_DATA";

/// The data folder of `serve`, unless it is given another.
const DEFAULT_DATA: &str = "./exosphere-data";

/// The longest key file that is read, in bytes: a key, and white space around it.
const MAX_KEY_FILE_BYTES: usize = KEY_CHARS + 64;

/// Finds the key for a host. A key that the command line does not name, from the data folder, goes to a host on this
/// machine only.
pub fn find(key_file: Option<&Path>, is_local: bool) -> Result<Option<ApiKey>, Error> {
    if let Some(file) = key_file {
        let name = file.display();
        let missing = || Error::Failed(format!("cannot read the key file {name}: it is missing"));
        return read(file)?.ok_or_else(missing).map(Some);
    }
    if let Some(text) = std::env::var_os(KEY_VARIABLE).filter(|text| !text.is_empty()) {
        let text = Zeroizing::new(text.into_string().unwrap_or_default());
        return parse(&text, KEY_VARIABLE).map(Some);
    }
    if !is_local {
        return Ok(None);
    }
    let data = std::env::var_os(DATA_VARIABLE).filter(|folder| !folder.is_empty());
    read(&admin_key_file(&data.map_or_else(|| PathBuf::from(DEFAULT_DATA), PathBuf::from)))
}

/// Reads a key file; returns `None` if there is none.
fn read(file: &Path) -> Result<Option<ApiKey>, Error> {
    let cannot = |error| Error::Failed(format!("cannot read {}: {error}", file.display()));
    let open = match File::open(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(cannot)?,
    };
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE_BYTES + 1));
    open.take(MAX_KEY_FILE_BYTES as u64 + 1).read_to_string(&mut text).map_err(cannot)?;
    parse(&text, &file.display().to_string()).map(Some)
}

fn parse(text: &str, source: &str) -> Result<ApiKey, Error> {
    // The text is not shown: it may be another secret.
    text.trim().parse().map_err(|error| Error::Usage(format!("{source} has no API key: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "exo_0bCnOza3eFqR_2dEpQU5gHsTX8jKvWaBmNyZ2dEpQ1c5g1Y21uZ";

    #[test]
    fn a_key_file_has_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, format!("{KEY}\n")).unwrap();
        assert_eq!(find(Some(&file), false).unwrap().unwrap().expose(), KEY);
        for text in ["", "hunter2", &KEY[1..], &format!("{KEY} {KEY}"), &"x".repeat(1 << 20)] {
            std::fs::write(&file, text).unwrap();
            let message = find(Some(&file), true).unwrap_err().to_string();
            assert!(text.is_empty() || !message.contains(text), "{message}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(find(Some(&file), true).is_err());
    }
}
