//! How much memory the process keeps that it has freed. Left alone, glibc keeps
//! what its largest moments took, many times over: a host that has taken a few
//! large uploads and outputs would hold hundreds of megabytes for nothing.

/// Makes what was freed go back to the system, most of it at once.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Larger pieces are the system's own again as soon as they are freed.
        /// It is what glibc begins with, and then raises up to 32 MiB.
        const LARGE: libc::c_int = 128 * 1024;
        set(libc::M_MMAP_THRESHOLD, LARGE);
        // Small pieces lie in arenas, each of which keeps what it once had. By
        // default there may be eight for each processor.
        let processors = std::thread::available_parallelism().map_or(2, |number| number.get());
        set(libc::M_ARENA_MAX, i32::try_from(processors.clamp(2, 16)).unwrap_or(2));
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set(what: libc::c_int, number: libc::c_int) {
    // SAFETY: it sets a number, before there is another thread. That it cannot be
    // set (0) changes nothing but how much is kept.
    #[expect(unsafe_code, reason = "the only way, and before any thread begins")]
    let _ = unsafe { libc::mallopt(what, number) };
}
