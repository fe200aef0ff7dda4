//! The cache of compiled code on disk, so that a restart does not compile again.
//!
//! Loading compiled code runs it: nothing in it is checked. So a file is loaded only if
//! it carries an authentication code (HMAC-SHA-256) made with the host's key. The code
//! covers the file's contents, the plugin's digest and every relevant setting of the
//! engine. An attacker with write access to the folder but without the key can make the
//! host compile again, nothing else. No file is ever required.

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

use crate::admission::inspect::ComponentSummary;
use crate::artifact::Artifact;
use crate::clock::system_time;
use crate::engine::WASMTIME_VERSION;

/// Default maximum bytes of all cache files together.
pub const DEFAULT_CACHE_BYTES: u64 = 1024 * 1024 * 1024;

/// The format that the authentication code covers; a file of another format does not
/// authenticate.
const FORMAT: &[u8] = b"exosphere artifact 1";

/// Bytes of the authentication code, at the head of each file.
const TAG_BYTES: usize = 32;

/// The extensions of finished cache files, and of files that are being written.
const CODE_EXTENSION: &str = "code";
const PARTIAL_EXTENSION: &str = "part";

/// The cache folder, with the key and the engine that its files are bound to.
pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
    /// A hash of the engine's version and of every engine setting that compiled code
    /// depends on.
    engine: [u8; 32],
    partial_files: AtomicU64,
    /// Maximum bytes of all files together; the least recently used are removed first.
    total_bytes: u64,
}

impl Cache {
    /// Opens the cache folder; creates it if it does not exist.
    pub(crate) fn open(
        folder: PathBuf,
        key: [u8; 32],
        total_bytes: u64,
        engine: &Engine,
    ) -> io::Result<Cache> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut hasher = Sha256Hasher(Sha256::new());
        FORMAT.hash(&mut hasher);
        WASMTIME_VERSION.hash(&mut hasher);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Cache {
            folder,
            key,
            engine: hasher.0.finalize().into(),
            partial_files: AtomicU64::new(0),
            total_bytes,
        })
    }

    /// Loads the compiled code of a plugin, if the cache has an authentic file of it.
    pub(crate) fn get(
        &self,
        engine: &Engine,
        digest: Digest,
    ) -> Option<(ComponentSummary, Component)> {
        let path = self.path(digest);
        let file = match read(&path, self.total_bytes) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cached code cannot be read");
                // A bad file must be removed, or `put` would never replace it.
                let _ = fs::remove_file(&path);
                return None;
            }
        };
        let Some(artifact) = self.authenticate(digest, file) else {
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

    /// Stores the compiled code of a plugin. A failure is only logged.
    pub(crate) fn put(&self, digest: Digest, artifact: &Artifact) {
        if self.path(digest).exists() {
            return;
        }
        match self.write(digest, artifact.bytes()) {
            Ok(()) => self.evict(),
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "compiled code is not cached");
            }
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let engine = hex::encode(self.engine.get(..8).unwrap_or_default());
        self.folder.join(format!("{digest}-{engine}.{CODE_EXTENSION}"))
    }

    fn mac(&self, digest: Digest, code: &[u8]) -> Option<Hmac<Sha256>> {
        // HMAC takes a key of any length, so this never fails.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        // Both have a fixed length, so no two inputs give the same bytes.
        mac.update(digest.to_string().as_bytes());
        mac.update(&self.engine);
        mac.update(code);
        Some(mac)
    }

    /// Returns the contents of a file, if its authentication code is valid. The code is
    /// made with a key that only this host has. It binds the contents to the plugin and
    /// to this version and configuration of the engine.
    fn authenticate(&self, digest: Digest, file: Vec<u8>) -> Option<Artifact> {
        let (tag, rest) = file.split_at_checked(TAG_BYTES)?;
        self.mac(digest, rest)?.verify_slice(tag).ok()?;
        Artifact::from_cache_file(file, TAG_BYTES)
    }

    /// Writes a temporary file, then renames it: a reader sees the whole file or none.
    fn write(&self, digest: Digest, code: &[u8]) -> io::Result<()> {
        let mac = self.mac(digest, code).ok_or_else(|| io::Error::other("no key"))?;
        let number = self.partial_files.fetch_add(1, Ordering::Relaxed);
        let temporary =
            self.folder.join(format!("{}-{number}.{PARTIAL_EXTENSION}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(&mac.finalize().into_bytes())?;
                file.write_all(code)
            })
            .and_then(|()| fs::rename(&temporary, self.path(digest)));
        if written.is_err() {
            // The temporary file may not exist.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes the least recently used files until the rest is small enough.
    fn evict(&self) {
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
            // Another host may have removed the file first.
            let _ = fs::remove_file(path);
            total -= bytes;
        }
    }

    /// Lists the cache files: time of last use, bytes, path.
    fn files(&self) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            let is_cache_file =
                path.extension().is_some_and(|e| e == CODE_EXTENSION || e == PARTIAL_EXTENSION);
            if let (true, Ok(data)) = (is_cache_file, entry.metadata()) {
                files.push((data.modified()?, data.len(), path));
            }
        }
        Ok(files)
    }
}

/// Reads a file and sets its modification time to now, by which eviction finds the least
/// recently used.
fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    // An attacker with write access to the folder may have put an endless or a silent
    // file there, such as a device or a pipe.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let data = file.metadata()?;
    if !data.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if data.len() > max_bytes {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than the whole cache"));
    }
    // A failure only makes eviction remove the file earlier.
    let _ = file.set_modified(system_time());
    let mut bytes = Vec::new();
    file.take(data.len()).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A cryptographic hash as a standard `Hasher`: 64 bits are too few to tell engines
/// apart.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
