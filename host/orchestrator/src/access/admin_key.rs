//! The first key of a database: an admin key, in a file of the data folder. The command line on
//! this machine finds it there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use exosphere_domain::access::Access;
use exosphere_domain::api_key::ApiKey;
use exosphere_domain::ids::Millis;
use exosphere_store::{NewApiKey, Store};

use crate::error::StartError;
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
    let (draft, file) = (folder.join("admin.key.new"), folder.join(ADMIN_KEY_FILE));
    let cannot = |error| StartError::Folder { folder: folder.display().to_string(), error };
    let key = ApiKey::generate(system::fill_random);
    write(&draft, &key).map_err(cannot)?;
    let new = NewApiKey {
        id: key.id(),
        digest: key.digest(),
        access: Access::full(),
        label: "first admin key".to_owned(),
        requests_per_second: None,
        expires_at: None,
    };
    fs::rename(&draft, &file).and_then(|()| sync(folder)).map_err(cannot)?;
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

fn write(file: &Path, key: &ApiKey) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(new, "{}", key.expose())?;
    new.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
