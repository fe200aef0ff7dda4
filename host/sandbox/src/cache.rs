//! Compiled code on disk, so that a restart does not compile again.
//!
//! Loading compiled code is running it: nothing in it is checked. So a file is
//! loaded only if it carries a code of authenticity (HMAC-SHA-256) made with
//! the host's key over the file's contents, the plugin's digest and everything
//! about the engine that matters. Whoever can write to the folder but has not
//! the key can make us compile again, nothing else. No file is ever required.

use std::fs::{self, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use exosphere_domain::ids::Digest;
use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::artifact::Artifact;
use crate::clock::system_time;
use crate::engine::WASMTIME_VERSION;
use crate::inspect::Facts;

/// Bytes of all files together, unless the operator says otherwise.
pub const DEFAULT_CACHE_BYTES: u64 = 1024 * 1024 * 1024;

/// What the files hold, besides the engine's code: a file of another format is
/// no file of ours.
const FORMAT: &[u8] = b"exosphere artifact 1";

/// Bytes of the code of authenticity, at the head of each file.
const TAG_BYTES: usize = 32;

/// How the names of our files end, and of those that are being written.
const ENDING: &str = "code";
const UNFINISHED: &str = "part";

/// The folder, and what its files are bound to.
pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
    /// A hash of the engine's version and of every setting of it that compiled
    /// code depends on.
    engine: [u8; 32],
    unfinished: AtomicU64,
    /// Bytes of all files together; the oldest go first.
    total_bytes: u64,
}

impl Cache {
    /// Opens the folder, or makes it.
    pub(crate) fn open(
        folder: PathBuf,
        key: [u8; 32],
        total_bytes: u64,
        engine: &Engine,
    ) -> io::Result<Cache> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut hasher = ByHash(Sha256::new());
        FORMAT.hash(&mut hasher);
        WASMTIME_VERSION.hash(&mut hasher);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Cache {
            folder,
            key,
            engine: hasher.0.finalize().into(),
            unfinished: AtomicU64::new(0),
            total_bytes,
        })
    }

    /// The compiled code of a plugin, if it is here and ours.
    pub(crate) fn get(&self, engine: &Engine, digest: Digest) -> Option<(Facts, Component)> {
        let path = self.path(digest);
        let file = match read(&path, self.total_bytes) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cached code cannot be read");
                // Else nothing better would take its place.
                let _ = fs::remove_file(&path);
                return None;
            }
        };
        let Some(artifact) = self.authentic(digest, file) else {
            tracing::warn!(
                path = %path.display(),
                "cached code is damaged or was not written by this host: it is compiled again"
            );
            let _ = fs::remove_file(&path);
            return None;
        };
        let loaded = artifact.load(engine);
        loaded
            .inspect_err(
                |error| tracing::warn!(path = %path.display(), %error, "cached code does not fit"),
            )
            .ok()
    }

    /// Keeps the compiled code of a plugin. That this fails is only logged.
    pub(crate) fn put(&self, digest: Digest, artifact: &Artifact) {
        if self.path(digest).exists() {
            return;
        }
        match self.write(digest, artifact.bytes()) {
            Ok(()) => self.prune(),
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "compiled code is not cached");
            }
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let engine = hex::encode(self.engine.get(..8).unwrap_or_default());
        self.folder.join(format!("{digest}-{engine}.{ENDING}"))
    }

    fn mac(&self, digest: Digest, code: &[u8]) -> Option<Hmac<Sha256>> {
        // A key of any length will do, so this is always something.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        // Both have a fixed length: no two inputs read the same.
        mac.update(digest.to_string().as_bytes());
        mac.update(&self.engine);
        mac.update(code);
        Some(mac)
    }

    /// What a file holds, if it is ours: the code over it was made with a key
    /// that only the host has, and binds it to the plugin and to this version
    /// and configuration of the engine.
    fn authentic(&self, digest: Digest, file: Vec<u8>) -> Option<Artifact> {
        let (tag, rest) = file.split_at_checked(TAG_BYTES)?;
        self.mac(digest, rest)?.verify_slice(tag).ok()?;
        Artifact::authentic(file, TAG_BYTES)
    }

    /// Writes beside, then renames: a reader sees the whole file or none.
    fn write(&self, digest: Digest, code: &[u8]) -> io::Result<()> {
        let mac = self.mac(digest, code).ok_or_else(|| io::Error::other("no key"))?;
        let number = self.unfinished.fetch_add(1, Ordering::Relaxed);
        let beside = self.folder.join(format!("{}-{number}.{UNFINISHED}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| {
                file.write_all(&mac.finalize().into_bytes())?;
                file.write_all(code)
            })
            .and_then(|()| fs::rename(&beside, self.path(digest)));
        if written.is_err() {
            // It may be that it was never made.
            let _ = fs::remove_file(&beside);
        }
        written
    }

    /// Removes the files that were not used for the longest time, until the
    /// rest is small enough.
    fn prune(&self) {
        let mut files = match self.files() {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "the code cache cannot be listed");
                return;
            }
        };
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if total <= self.total_bytes {
                break;
            }
            // Another host may have been quicker.
            let _ = fs::remove_file(path);
            total -= bytes;
        }
    }

    /// Our files: when they were used, how large they are, where they are.
    fn files(&self) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            let is_ours = path.extension().is_some_and(|e| e == ENDING || e == UNFINISHED);
            if let (true, Ok(data)) = (is_ours, entry.metadata()) {
                files.push((data.modified()?, data.len(), path));
            }
        }
        Ok(files)
    }
}

/// A file's contents, its time set to now: pruning goes by it.
fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Whoever can write to the folder may have put something there that has no
    // end, or never says a word.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let data = file.metadata()?;
    if !data.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if data.len() > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than the whole cache"));
    }
    // It only makes the file go earlier if this fails.
    let _ = file.set_modified(system_time());
    let mut bytes = Vec::new();
    file.take(data.len()).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A cryptographic hash where one of the standard library is asked for: 64
/// bits are too few to tell engines apart by.
struct ByHash(Sha256);

impl Hasher for ByHash {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
