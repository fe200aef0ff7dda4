//! The memory allocator of the binaries. Small allocations come from mimalloc: executions on
//! several threads allocate and free all the time, and glibc makes threads wait for each other
//! (docs/internals/performance-log.md has the figures). Large allocations come from the system,
//! which reuses their memory as soon as it is freed: mimalloc would keep some tens of megabytes
//! of uploads and outputs.
//!
//! Allocations by C code, above all SQLite's pages, still come from glibc. Every program that
//! depends on this crate uses this allocator. Not here: anything else.

use std::alloc::{GlobalAlloc, Layout, System};

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: BySize = BySize;

/// The size from which an allocation is large, in bytes. It is the default threshold at
/// which glibc maps each allocation separately.
const LARGE_ALLOCATION_BYTES: usize = 128 * 1024;

/// An allocator that delegates to one of two others by the size of the allocation.
struct BySize;

// SAFETY: a layout always selects the same allocator, so memory returns to the one that
// allocated it; both keep the promises of the trait.
#[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
unsafe impl GlobalAlloc for BySize {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() < LARGE_ALLOCATION_BYTES {
            unsafe { MiMalloc.alloc(layout) }
        } else {
            unsafe { System.alloc(layout) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() < LARGE_ALLOCATION_BYTES {
            unsafe { MiMalloc.alloc_zeroed(layout) }
        } else {
            unsafe { System.alloc_zeroed(layout) }
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if layout.size() < LARGE_ALLOCATION_BYTES {
            unsafe { MiMalloc.dealloc(piece, layout) }
        } else {
            unsafe { System.dealloc(piece, layout) }
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let was_small = layout.size() < LARGE_ALLOCATION_BYTES;
        if was_small != (size < LARGE_ALLOCATION_BYTES) {
            unsafe { self.move_across(piece, layout, size) }
        } else if was_small {
            unsafe { MiMalloc.realloc(piece, layout, size) }
        } else {
            unsafe { System.realloc(piece, layout, size) }
        }
    }
}

impl BySize {
    /// Moves an allocation from one allocator to the other.
    ///
    /// # Safety
    ///
    /// As for [`GlobalAlloc::realloc`].
    #[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
    unsafe fn move_across(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `piece` has this layout, and that the new
        // size is valid with this alignment.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(piece, layout.size().min(size));
                self.dealloc(piece, layout);
            }
            new
        }
    }
}

/// Makes glibc return freed memory to the system, most of it immediately. Must be called before
/// a second thread starts.
pub fn release_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // This is glibc's initial threshold, which it otherwise raises up to 32 MiB.
        set_malloc_option(libc::M_MMAP_THRESHOLD, LARGE_ALLOCATION_BYTES as libc::c_int);
        // Small allocations of C code come from arenas, and each arena keeps its peak memory.
        // By default there may be eight for each processor.
        let processors = std::thread::available_parallelism().map_or(2, |number| number.get());
        set_malloc_option(libc::M_ARENA_MAX, i32::try_from(processors.clamp(2, 16)).unwrap_or(2));
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set_malloc_option(option: libc::c_int, number: libc::c_int) {
    // SAFETY: it sets a number before a second thread starts. If it fails (0), only the
    // amount of memory kept changes.
    #[expect(unsafe_code, reason = "the only way, and before any thread begins")]
    let _ = unsafe { libc::mallopt(option, number) };
}

#[cfg(test)]
mod tests {
    use super::LARGE_ALLOCATION_BYTES;

    #[test]
    fn reallocation_across_allocators_keeps_contents() {
        let written: Vec<u8> = (0..=u8::MAX).cycle().take(LARGE_ALLOCATION_BYTES - 1).collect();
        let mut piece = written.clone();
        for size in [
            LARGE_ALLOCATION_BYTES,
            3 * LARGE_ALLOCATION_BYTES,
            LARGE_ALLOCATION_BYTES + 1,
            LARGE_ALLOCATION_BYTES - 1,
            10,
        ] {
            piece.resize(size.min(written.len()), 0);
            piece.shrink_to_fit();
            piece.reserve_exact(size - piece.len());
            assert!(piece.capacity() >= size);
            assert_eq!(piece, written[..piece.len()], "{size}");
        }
        assert!(vec![0_u8; 2 * LARGE_ALLOCATION_BYTES].iter().all(|byte| *byte == 0));
        assert!(vec![0_u8; LARGE_ALLOCATION_BYTES / 2].iter().all(|byte| *byte == 0));
    }
}
