//! Hardening of a host's process: its keys, its memory and its files are private.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use exosphere_domain::api_key::ApiKey;
use exosphere_orchestrator::{KeySource, Keyring};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, umask};
use zeroize::Zeroizing;

use crate::credentials::KEY_VARIABLE;
use crate::error::Error;

/// The environment variable that may hold the keys.
const MASTER_KEY: &str = "EXOSPHERE_MASTER_KEY";

/// The value of the variable, unparsed.
pub struct MasterKey(OsString);

/// Takes the keys out of the environment, so that no child process inherits them and no
/// dump of the environment shows them.
pub fn take_master_key() -> Option<MasterKey> {
    let text = std::env::var_os(MASTER_KEY)?;
    // SAFETY: nothing else runs yet that could read the environment.
    #[expect(unsafe_code, reason = "the only way, and before any thread begins")]
    unsafe {
        std::env::remove_var(MASTER_KEY);
    }
    Some(MasterKey(text))
}

/// The beginning of the names of this program's environment variables.
const VARIABLES: &str = "EXOSPHERE_";

/// Removes the variables of this program that are empty: they count as not given.
pub fn remove_empty_variables() {
    let is_empty = |(name, value): &(OsString, OsString)| {
        value.is_empty() && name.to_string_lossy().starts_with(VARIABLES)
    };
    let empty: Vec<_> = std::env::vars_os().filter(is_empty).map(|(name, _)| name).collect();
    for name in empty {
        // SAFETY: nothing else runs yet that could read the environment.
        #[expect(unsafe_code, reason = "the only way, and before any thread begins")]
        unsafe {
            std::env::remove_var(name);
        }
    }
}

/// The source of the keys that encrypt secrets.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// The file with the keys that encrypt secrets, created with one key if it does
    /// not exist [default: host.key in the data folder]
    ///
    /// It holds keys of 32 bytes one after the other. The first one encrypts, the
    /// others decrypt older secrets; `exosphere secrets rotate` puts a new one in
    /// front. Hosts that share a database must share the keys.
    ///
    /// Instead of a file, the variable EXOSPHERE_MASTER_KEY may hold the keys: 64
    /// hexadecimal digits or base64 each, with commas between them, the current
    /// one first. The host removes it from its environment at once.
    #[arg(long, env = "EXOSPHERE_MASTER_KEY_FILE", value_name = "FILE")]
    key: Option<PathBuf>,
}

impl KeyArgs {
    /// Returns the keys themselves, or the key file to read.
    pub fn keys(&self, master_key: Option<MasterKey>) -> Result<KeySource, Error> {
        refuse_former_variable(std::env::var_os(KEY_VARIABLE))?;
        let Some(MasterKey(text)) = master_key else {
            return Ok(self.key.clone().map_or(KeySource::InFolder, KeySource::File));
        };
        if self.key.is_some() {
            let message = format!(
                "both a key file (--key, EXOSPHERE_MASTER_KEY_FILE) and {MASTER_KEY} are given; give only one"
            );
            return Err(Error::Usage(message));
        }
        let text = Zeroizing::new(text.into_string().unwrap_or_default());
        let keys = Keyring::from_text(&text);
        keys.map(KeySource::Given)
            .map_err(|cause| Error::Usage(format!("{MASTER_KEY} is not a valid key: {cause}")))
    }
}

/// Refuses the path of a key file in the variable that named it before API keys: without the
/// file, this host would make new keys.
fn refuse_former_variable(value: Option<OsString>) -> Result<(), Error> {
    let text = Zeroizing::new(value.unwrap_or_default().into_string().unwrap_or_default());
    if text.is_empty() || text.trim().parse::<ApiKey>().is_ok() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{KEY_VARIABLE} holds no key of the API; if it names the file with the keys that encrypt \
         secrets, rename it to EXOSPHERE_MASTER_KEY_FILE"
    )))
}

/// Keeps the memory of this process, which holds keys and secrets, out of core dumps and away
/// from other processes of the user. The host starts even on a system that does not support
/// this.
pub fn keep_memory_private() {
    let zero_limit = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, zero_limit) {
        tracing::warn!(%error, "cannot disable core dumps; one of this host would contain secrets");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        tracing::warn!(%error, "cannot protect the memory of this host; other processes of its user may read it");
    }
}

/// Makes every file that this process creates private to its user, the database
/// included.
pub fn keep_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_former_variable_is_refused() {
        let refuse = |text: &str| refuse_former_variable(Some(text.into())).is_err();
        assert!(refuse("/run/exosphere.key"));
        assert!(!refuse("") && refuse_former_variable(None).is_ok());
        assert!(!refuse("exo_0bCnOza3eFqR_2dEpQU5gHsTX8jKvWaBmNyZ2dEpQ1c5g1Y21uZ"));
    }

    #[test]
    fn keys_come_from_one_place() {
        let from_environment = |text: &str| Some(MasterKey(text.into()));
        let in_file = || KeyArgs { key: Some("k".into()) };
        let no_key_argument = || KeyArgs { key: None };
        assert!(matches!(no_key_argument().keys(None), Ok(KeySource::InFolder)));
        assert!(matches!(in_file().keys(None), Ok(KeySource::File(_))));
        assert!(matches!(
            no_key_argument().keys(from_environment(&"0f".repeat(32))),
            Ok(KeySource::Given(_))
        ));
        assert_eq!(in_file().keys(from_environment(&"0f".repeat(32))).unwrap_err().exit_code(), 2);
        let message = no_key_argument().keys(from_environment("hunter2")).unwrap_err().to_string();
        assert!(message.contains("key 1") && !message.contains("hunter2"), "{message}");
    }
}
