//! Counts the memory that is allocated to open an image: a process of its own, since the counter is global.
#![expect(unsafe_code, reason = "an allocator is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use vhdx_mmap::{Disk, OpenOptions, Segment, Source};
use vhdx_testkit::builder::Spec;

/// Counts the bytes of all allocations.
struct Counting(AtomicUsize);

#[global_allocator]
static ALLOCATED: Counting = Counting(AtomicUsize::new(0));

// SAFETY: every call is passed unchanged to the allocator of the system.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of this same function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of this same function.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[test]
fn opening_and_reading_64_tib_needs_little_memory() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("disk.vhdx");
    // Blocks of 1 MiB: a BAT of 512 MiB, which is a hole.
    Spec { block_size: 1 << 20, ..Spec::empty(64 << 40) }.build().bytes.write_file(&path).unwrap();

    let before = ALLOCATED.0.load(Ordering::Relaxed);
    // SAFETY: no other process uses the file.
    let source = unsafe { Source::map(&path) }.unwrap();
    let disk = Disk::open(source, &OpenOptions::new()).unwrap();
    let opened = ALLOCATED.0.load(Ordering::Relaxed).checked_sub(before).unwrap();
    assert_eq!((disk.size(), disk.block_size()), (64 << 40, 1 << 20));
    // Most of it are copies of the two region tables, of 64 KiB each.
    assert!(opened < 256 << 10, "{opened} bytes to open");

    // The first pass over a large table starts the threads of the process.
    disk.image().block_states().unwrap();
    let before = ALLOCATED.0.load(Ordering::Relaxed);
    let segments: Vec<Segment<'_>> = disk.segments(..).map(Result::unwrap).collect();
    assert_eq!(segments, [Segment::Zero(64 << 40)]);
    assert_eq!(disk.image().block_states().unwrap().count(vhdx_mmap::PayloadBlockState::NotPresent), 1 << 26);
    let mut buffer = [1; 4096];
    assert_eq!(disk.read_at(&mut buffer, 63 << 40).unwrap(), buffer.len());
    let read = ALLOCATED.0.load(Ordering::Relaxed).checked_sub(before).unwrap();
    assert!(read < 4 << 10, "{read} bytes to go through it");
}
