//! Where memory comes from. mimalloc, since executions on several threads take
//! and free pieces all the time, and glibc lets one wait for another with each of
//! them (docs/performance.md has the figures). It gives back what is free.
//!
//! What C has, SQLite's pages above all, is glibc's all the same.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Makes what C has freed go back to the system. Left alone, glibc keeps what its
/// largest moments took: a host that has stored a few large uploads would hold
/// them for nothing.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Larger pieces are the system's own again as soon as they are freed.
        /// It is what glibc begins with, and then raises up to 32 MiB.
        const LARGE: libc::c_int = 128 * 1024;
        // SAFETY: it sets a number, before there is another thread. That it
        // cannot be set (0) changes nothing but how much is kept.
        #[expect(unsafe_code, reason = "the only way, and before any thread begins")]
        let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }
}
