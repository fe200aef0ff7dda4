//! Where memory comes from. Small pieces are mimalloc's: executions on several
//! threads take and free them all the time, and glibc lets one thread wait for
//! another with each (docs/performance.md has the figures). Large ones are the
//! system's, which has them back as soon as they are freed: mimalloc would keep
//! some tens of megabytes of uploads and outputs.
//!
//! What C has, SQLite's pages above all, is glibc's all the same. A program that
//! depends on this crate has this allocator; nothing else is decided here.

use std::alloc::{GlobalAlloc, Layout, System};

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: BySize = BySize;

/// Bytes from which on a piece is large. It is where glibc begins to map each
/// piece by itself.
const LARGE: usize = 128 * 1024;

/// Two allocators, of which each piece's size says whose it is.
struct BySize;

// SAFETY: a layout decides between the same two each time, so that whoever gave a
// piece gets it back; both keep the promises of the trait.
#[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
unsafe impl GlobalAlloc for BySize {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match layout.size() < LARGE {
            true => unsafe { MiMalloc.alloc(layout) },
            false => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match layout.size() < LARGE {
            true => unsafe { MiMalloc.alloc_zeroed(layout) },
            false => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match layout.size() < LARGE {
            true => unsafe { MiMalloc.dealloc(piece, layout) },
            false => unsafe { System.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match (layout.size() < LARGE, size < LARGE) {
            (true, true) => unsafe { MiMalloc.realloc(piece, layout, size) },
            (false, false) => unsafe { System.realloc(piece, layout, size) },
            _ => unsafe { self.moved(piece, layout, size) },
        }
    }
}

impl BySize {
    /// A piece that goes from one allocator to the other.
    ///
    /// # Safety
    ///
    /// As for [`GlobalAlloc::realloc`].
    #[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
    unsafe fn moved(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the piece is of this layout, and that
        // the new size makes one of this alignment.
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

/// Makes what glibc gave go back to the system, most of it at once. To be called
/// before there is another thread.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // glibc begins with that, and then raises what is large up to 32 MiB.
        set(libc::M_MMAP_THRESHOLD, LARGE as libc::c_int);
        // What C takes in small pieces lies in arenas, each of which keeps what it
        // once had. By default there may be eight for each processor.
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

#[cfg(test)]
mod tests {
    use super::LARGE;

    #[test]
    fn a_piece_keeps_its_bytes_when_it_goes_to_the_other_allocator() {
        let written: Vec<u8> = (0..=u8::MAX).cycle().take(LARGE - 1).collect();
        let mut piece = written.clone();
        for size in [LARGE, 3 * LARGE, LARGE + 1, LARGE - 1, 10] {
            piece.resize(size.min(written.len()), 0);
            piece.shrink_to_fit();
            piece.reserve_exact(size - piece.len());
            assert!(piece.capacity() >= size);
            assert_eq!(piece, written[..piece.len()], "{size}");
        }
        assert!(vec![0_u8; 2 * LARGE].iter().all(|byte| *byte == 0));
        assert!(vec![0_u8; LARGE / 2].iter().all(|byte| *byte == 0));
    }
}
