//! Files that only their owner can read, and that are complete as soon as they have their name.
//!
//! Not here: what such files hold (`keys::file`, `access::admin_key`).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// The user and the group that own a file.
pub(crate) type Owner = (u32, u32);

/// Writes a new file to disk, readable by its owner alone: the user of this process, or `owner`.
pub(crate) fn write(file: &Path, bytes: &[u8], owner: Option<Owner>) -> io::Result<()> {
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    let metadata = new.metadata()?;
    if let Some((user, group)) = owner.filter(|owner| *owner != (metadata.uid(), metadata.gid())) {
        fchown(&new, Some(user), Some(group))?;
    }
    new.write_all(bytes)?;
    new.sync_all()
}

/// Writes or replaces a file. A concurrent reader finds all of the old bytes or all of the new ones,
/// as does the next process after a crash.
pub(crate) fn replace(file: &Path, bytes: &[u8], owner: Option<Owner>) -> io::Result<()> {
    let draft = with_ending(file, "new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write(&draft, bytes, owner)?;
    fs::rename(&draft, file)?;
    sync_folder(file)
}

/// Syncs the folder of a file, so that its name survives a crash of the machine.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}

/// Returns the folder of a file.
pub(crate) fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Returns the path of a file whose name has one more ending.
pub(crate) fn with_ending(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}
