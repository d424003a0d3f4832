//! Properties that programs rely on, other than the content.

use std::io::{BufRead, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use vhdx_mmap::{
    Block, Chain, Disk, DiskRange, Error, Extents, Image, Input, Layer, Losses, MetadataOverrides, OpenOptions,
    Parents, Reader, Runs, ScanError, Segment, Segments, SharedBytes, Source,
};

use crate::support::map;

/// An image whose content is documented in `tests/images/SOURCES.md`.
pub(crate) fn hello() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/hello.vhdx")
}

#[test]
fn public_types_are_send_and_sync() {
    fn shared<T: Send + Sync>() {}
    shared::<Source>();
    shared::<Image>();
    shared::<Disk>();
    shared::<Error>();
    shared::<Parents>();
    shared::<OpenOptions>();
    shared::<Segments<&'static Disk>>();
    shared::<Extents<&'static Disk>>();
    shared::<Block<'static>>();
    shared::<Reader<Arc<Disk>>>();
    shared::<SharedBytes>();
    shared::<DiskRange<Arc<Disk>>>();
}

#[test]
fn public_types_are_unwind_safe() {
    fn unwinds<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    unwinds::<Source>();
    unwinds::<Image>();
    unwinds::<Disk>();
    unwinds::<Error>();
    unwinds::<Parents>();
    unwinds::<OpenOptions>();
    unwinds::<Segments<&'static Disk>>();
    unwinds::<Extents<Arc<Disk>>>();
    unwinds::<Block<'static>>();
    unwinds::<Reader<Arc<Disk>>>();
    unwinds::<SharedBytes>();
    unwinds::<DiskRange<Arc<Disk>>>();
    unwinds::<Chain>();
    unwinds::<Layer>();
    unwinds::<Runs<Arc<Disk>>>();
    unwinds::<Losses<'static>>();
    unwinds::<ScanError>();
    unwinds::<Input<'static>>();
}

#[test]
fn metadata_overrides_are_empty_by_default() {
    let with = |change: fn(&mut MetadataOverrides)| {
        let mut assumed = MetadataOverrides::default();
        change(&mut assumed);
        assumed
    };
    assert!(with(|_| {}).is_nothing());
    assert!(!with(|assumed| assumed.block_size = Some(1 << 20)).is_nothing());
    assert!(!with(|assumed| assumed.disk_size = Some(0)).is_nothing());
    assert!(!with(|assumed| assumed.sector_size = Some(512)).is_nothing());
    assert!(!with(|assumed| assumed.has_parent = true).is_nothing());
}

#[test]
fn error_is_one_pointer_wide() {
    assert_eq!(size_of::<Error>(), size_of::<usize>());
}

#[test]
fn reader_may_own_its_disk() {
    let disk = Arc::new(Disk::open(map(&hello()), &OpenOptions::new()).unwrap());
    let mut reader = Reader::new(Arc::clone(&disk));
    drop(disk);
    // The superblock of the disk's ext4 file system.
    reader.seek(SeekFrom::Start(1024 + 56)).unwrap();
    let mut magic = [0; 2];
    reader.read_exact(&mut magic).unwrap();
    assert_eq!(magic, [0x53, 0xef]);
    assert_eq!(reader.seek(SeekFrom::End(0)).unwrap(), 16 << 20);
    assert_eq!(reader.read(&mut magic).unwrap(), 0);
    assert!(reader.fill_buf().unwrap().is_empty());
    assert!(reader.seek(SeekFrom::Current(-(17 << 20))).is_err());
    assert_eq!(reader.seek(SeekFrom::Current(5)).unwrap(), (16 << 20) + 5);
    assert_eq!(reader.read(&mut magic).unwrap(), 0, "reads past the end return nothing, without an error");
}

#[test]
fn segments_borrow_bytes_of_the_file() {
    let disk = Disk::open(map(&hello()), &OpenOptions::new()).unwrap();
    let first = disk.segments(..).next().unwrap().unwrap();
    let again = disk.slice(0, 512).unwrap().unwrap();
    let Segment::Data(bytes) = first else { panic!("{first:?}") };
    assert_eq!(bytes.as_ptr(), again.as_ptr(), "one location, borrowed twice");
    assert_eq!(bytes.len(), 1 << 20);
    // The offset is that in the map.
    let extent = disk.extents(..).next().unwrap().unwrap();
    let mut file = std::fs::File::open(hello()).unwrap();
    file.seek(SeekFrom::Start(extent.file_offset().unwrap())).unwrap();
    let mut expected = vec![0; 1 << 20];
    file.read_exact(&mut expected).unwrap();
    assert_eq!(bytes, expected);
}

#[test]
fn ranges_end_with_the_disk() {
    let disk = Disk::open(map(&hello()), &OpenOptions::new()).unwrap();
    let size = disk.size();
    let length = |segments: Segments<&Disk>| segments.map(|segment| segment.unwrap().len()).sum::<u64>();
    assert_eq!(length(disk.segments(..)), size);
    assert_eq!(length(disk.segments(size - 10..u64::MAX)), 10);
    assert_eq!(length(disk.segments(5..=5)), 1);
    assert_eq!(length(disk.segments(size..)), 0);
    assert_eq!(length(disk.segments(u64::MAX..)), 0);
    #[expect(clippy::reversed_empty_ranges, reason = "it is what is tested")]
    let reversed = length(disk.segments(20..10));
    assert_eq!(reversed, 0);
    let mut buffer = [1; 32];
    assert_eq!(disk.read_at(&mut buffer, size - 7).unwrap(), 7);
    assert_eq!(buffer[7], 1, "what is not read is not touched");
    assert_eq!(disk.read_at(&mut buffer, u64::MAX).unwrap(), 0);
    assert!(disk.slice(size - 1, 2).is_err());
    assert_eq!(disk.slice(size, 0).unwrap(), Some(&[][..]));
    assert!(disk.block(16).is_err());
    assert_eq!(disk.block(15).unwrap().len(), 1 << 20);
}

#[test]
fn zeros_can_be_borrowed_as_slices() {
    let lengths = |segment: Segment<'static>| segment.slices().map(<[u8]>::len).collect::<Vec<_>>();
    assert_eq!(lengths(Segment::Zero(5)), [5]);
    assert_eq!(lengths(Segment::Zero(64 << 10)), [64 << 10]);
    assert_eq!(lengths(Segment::Zero((128 << 10) + 1)), [64 << 10, 64 << 10, 1]);
    assert_eq!(lengths(Segment::Data(b"abc")), [3]);
}
