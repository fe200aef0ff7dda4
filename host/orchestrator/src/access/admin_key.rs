//! The first key of a database: an admin key, in a file of the data folder. The command line on
//! this machine finds it there.

use std::fs;
use std::path::{Path, PathBuf};

use exosphere_domain::access::Access;
use exosphere_domain::api_key::ApiKey;
use exosphere_domain::ids::Millis;
use exosphere_store::{NewApiKey, Store};
use zeroize::Zeroizing;

use crate::error::StartError;
use crate::private_file;
use crate::system;

/// The name of the file.
pub const ADMIN_KEY_FILE: &str = "admin.key";

/// Creates an admin key if the database has no key yet. The file is written first: a crash
/// between the two leaves a file without a key, which the next start replaces.
pub(crate) async fn create_if_first(
    store: &Store,
    folder: &Path,
    now: Millis,
) -> Result<(), StartError> {
    if store.count_api_keys().await? > 0 {
        return Ok(());
    }
    let file = admin_key_file(folder);
    let cannot = |error| StartError::Folder { folder: folder.display().to_string(), error };
    let key = ApiKey::generate(system::fill_random);
    let text = Zeroizing::new(format!("{}\n", key.expose()));
    private_file::replace(&file, text.as_bytes(), None).map_err(cannot)?;
    let new = NewApiKey {
        id: key.id(),
        digest: key.digest(),
        access: Access::full(),
        label: "first admin key".to_owned(),
        requests_per_second: None,
        expires_at: None,
    };
    if store.create_first_api_key(new, now).await? {
        tracing::info!(key = %key.id(), file = %file.display(), "created the first admin key");
    } else {
        // Another host was faster; its folder has the key.
        fs::remove_file(&file).map_err(cannot)?;
    }
    Ok(())
}

/// Returns the path of the admin key in a data folder.
pub fn admin_key_file(folder: &Path) -> PathBuf {
    folder.join(ADMIN_KEY_FILE)
}
