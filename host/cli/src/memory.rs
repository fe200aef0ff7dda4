//! How the process keeps memory that it has freed: not at all, where there is
//! much of it.

/// Makes large pieces of memory go back to the system as soon as they are freed.
///
/// glibc learns from the first large piece that is freed to keep the next ones,
/// up to 64 MiB for each thread that ever had one. A host that has taken a few
/// large uploads and outputs would hold hundreds of megabytes for nothing.
pub fn give_back_what_is_large() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// What glibc begins with.
        const LARGE: libc::c_int = 128 * 1024;
        /// Heaps that threads share: each keeps what the largest lot of small
        /// pieces took in it, and without a bound there are eight a processor.
        const ARENAS: libc::c_int = 2;
        // SAFETY: they set numbers, before there is another thread. That they
        // cannot be set (0) changes nothing but how much is kept.
        #[expect(unsafe_code, reason = "the only way, and before any thread begins")]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
            libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        }
    }
}
