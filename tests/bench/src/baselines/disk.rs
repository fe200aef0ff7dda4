//! The disk alone: the time of a synced write.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

/// Number of syncs.
const SYNCS: u32 = 300;

/// Writes and syncs a page repeatedly, and returns the milliseconds of each.
pub fn syncs(folder: &Path) -> Result<Vec<f64>> {
    let file = File::create(folder.join("fsync"))?;
    (&file).write_all(&[0; 4096])?;
    file.sync_all()?;
    let mut all = Vec::new();
    for turn in 0..SYNCS {
        let started = Instant::now();
        file.write_all_at(&[turn as u8; 4096], 0)?;
        file.sync_data()?;
        all.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(all)
}
