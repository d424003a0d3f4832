//! Sources: the number of their requests, their errors, and objects that are built on them.

use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vhdx_mmap::{
    Category, Disk, DiskRange, Error, ErrorKind, Image as Opened, Location, LogPolicy, LogReport, OpenOptions, Parents,
    PayloadBlockState, ReadAt, Reader, Rule, Run, Segment, SharedBytes, Source, Strictness,
};

use crate::kit::builder::{Image, Spec};
use crate::kit::log::Dirty;
use crate::kit::{Block, KIB, MIB, PAGE, SparseBytes, TIB, pattern};
use crate::lab::{Door, open_chain, run, size, source, wide};
use crate::support::{map, temp_dir};

/// Bytes of an image that count requests, know their holes if they should, and fail somewhere.
struct Counted {
    bytes: SparseBytes,
    knows_holes: bool,
    fails_at: Option<u64>,
    requests: AtomicU64,
    read: AtomicU64,
}

impl Counted {
    fn of(image: &Image) -> Arc<Self> {
        let (requests, read) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { bytes: image.bytes.clone(), knows_holes: true, fails_at: None, requests, read })
    }

    /// Returns the number of requests since the last call, and their bytes.
    fn take(&self) -> (u64, u64) {
        (self.requests.swap(0, Ordering::Relaxed), self.read.swap(0, Ordering::Relaxed))
    }
}

impl ReadAt for Counted {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.read.fetch_add(wide(buf.len()), Ordering::Relaxed);
        if self.fails_at.is_some_and(|at| (offset..offset + wide(buf.len())).contains(&at)) {
            return Err(io::Error::other("the store does not answer"));
        }
        if offset + wide(buf.len()) > self.bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf.copy_from_slice(&self.bytes.read(offset, buf.len()));
        Ok(())
    }

    fn hole_end(&self, offset: u64, end: u64) -> u64 {
        if !self.knows_holes {
            return offset;
        }
        let page = offset / PAGE * PAGE;
        let next = self.bytes.written_pages(page, end).into_iter().next();
        next.map_or(end, |next| next.max(offset))
    }
}

/// For any size of the disk and of its table, and any location of the regions.
#[test]
fn opening_takes_few_requests() {
    let mut far = Spec::empty(8 * TIB);
    (far.log_offset, far.metadata_offset, far.bat_offset) = (900 * MIB, 700 * MIB, 100 * MIB);
    let dense = (0..64).fold(Spec::empty(64 * MIB), |spec, number| spec.block(number, Block::full()));
    for (what, spec) in [("empty", Spec::empty(MIB)), ("dense", dense), ("64 TiB", Spec::empty(64 * TIB)), ("far", far)]
    {
        let reader = Counted::of(&spec.build());
        let disk = Disk::open(Source::from_reader(Arc::clone(&reader)).unwrap(), &OpenOptions::new()).unwrap();
        let (requests, bytes) = reader.take();
        assert!(requests <= 6 && bytes <= 512 * KIB, "{what}: {requests} requests for {bytes} bytes");
        // A read takes one request for the table, and one for the bytes, if there are any.
        let mut sector = [0xA5; 512];
        assert_eq!(disk.read_at(&mut sector, 5 * 512).unwrap(), 512);
        let (requests, bytes) = reader.take();
        assert!(requests <= 2 && bytes <= 32 * KIB, "{what}: {requests} requests for {bytes} bytes to read a sector");
        assert_eq!(disk.read_at(&mut sector, 6 * 512).unwrap(), 512);
        let (requests, bytes) = reader.take();
        assert!(requests <= 1 && bytes <= 512, "{what}: {requests} requests for {bytes} bytes to read the next one");
        Opened::identity(&Source::from_reader(Arc::clone(&reader)).unwrap()).unwrap();
        let (requests, bytes) = reader.take();
        assert!(requests <= 3 && bytes <= 12 * KIB, "{what}: {requests} requests for {bytes} bytes of headers");
    }
}

/// A table of 512 MiB that is one hole, and one that is not known to be.
#[test]
fn known_holes_are_not_read() {
    let image = Spec::empty(64 * TIB).block(30_000_000, Block::full()).build();
    let reader = Counted::of(&image);
    let disk = Disk::open(Source::from_reader(Arc::clone(&reader)).unwrap(), &OpenOptions::new()).unwrap();
    reader.take();
    let states = disk.image().block_states().unwrap();
    assert_eq!(states.count(PayloadBlockState::FullyPresent), 1);
    let (requests, bytes) = reader.take();
    assert!(bytes <= 2 * MIB, "{requests} requests for {bytes} bytes of a table");
    let runs: Vec<Run> = disk.runs(..).collect::<Result<_, _>>().unwrap();
    assert_eq!(
        runs.iter().filter(|run| run.is_data()).map(|run| (run.start, run.len)).collect::<Vec<_>>(),
        [(30_000_000 * MIB, MIB)]
    );
    let (requests, bytes) = reader.take();
    assert!(bytes <= 2 * MIB, "{requests} requests for {bytes} bytes of a table");
}

/// A second question about the content of the same disk reads nothing.
#[test]
fn content_is_judged_once() {
    let reader = Counted::of(&Spec::default().build());
    let disk = Disk::open(Source::from_reader(reader.clone()).unwrap(), &OpenOptions::new()).unwrap();
    reader.take();
    assert!(vhdx_mmap::ops::content_warnings(&disk).is_empty());
    assert_ne!(reader.take().0, 0);
    assert!(vhdx_mmap::ops::content_warnings(&disk).is_empty());
    assert_eq!(reader.take(), (0, 0));
}

/// The error names the structure that could not be read, and contains the reader's text.
#[test]
fn failure_of_a_reader_is_an_error_with_its_cause() {
    let image = Spec::empty(8 * MIB).block(1, Block::full()).block(2, Block::full()).build();
    let failing = |at: u64| {
        let bytes = image.bytes.clone();
        let (requests, read) = (AtomicU64::new(0), AtomicU64::new(0));
        Source::from_reader(Counted { bytes, knows_holes: false, fails_at: Some(at), requests, read }).unwrap()
    };
    let place = image.block_at(1) + 5000;
    let disk = Disk::open(failing(place), &OpenOptions::new()).unwrap();
    let mut piece = vec![0; 64 << 10];
    disk.read_at(&mut piece, 2 * MIB).unwrap();
    let error = disk.read_at(&mut piece, MIB).unwrap_err();
    assert_eq!((error.category(), error.rule()), (Category::Io, Some(Rule::Medium)));
    assert!(error.to_string().contains("the store does not answer"), "{error}");
    // All bytes before and after it can be read.
    assert_eq!(disk.read_at(&mut piece[..4096], MIB).unwrap(), 4096);
    assert_eq!(piece[..4096], pattern(image.spec.seed, MIB, 4096));
    assert_eq!(disk.read_at(&mut piece, MIB + 8192).unwrap(), piece.len());
    // A salvage lists what is missing, to the page.
    let salvaged = Disk::open(failing(place), &OpenOptions::new().strictness(Strictness::Salvage)).unwrap();
    salvaged.read_at(&mut piece, MIB).unwrap();
    let mut expected = pattern(image.spec.seed, MIB, 64 << 10);
    expected[4096..8192].fill(0);
    assert!(piece == expected);
    let losses: Vec<_> = salvaged.losses(..).map(|loss| (loss.range.start, loss.range.end)).collect();
    assert_eq!(losses, [(MIB + 4096, MIB + 8192)]);
    // One of two headers is enough; an unreadable region table is an error.
    for at in [Image::header_at(1) + 7, Image::header_at(2) + 7] {
        assert_eq!(Disk::open(failing(at), &OpenOptions::new()).unwrap().warnings().count(), 1, "{at:#x}");
    }
    for at in [image.spec.metadata_offset, image.spec.metadata_offset + 64 * KIB] {
        let error = Disk::open(failing(at), &OpenOptions::new()).unwrap_err();
        assert_eq!((error.category(), error.rule()), (Category::Io, Some(Rule::Medium)), "{error}");
    }
    let error = Disk::open(failing(image.spec.bat_offset), &OpenOptions::new()).unwrap().block(0).unwrap_err();
    assert_eq!(error.category(), Category::Io, "{error}");
}

/// An unreadable log is an error, not a clean image.
#[test]
fn unreadable_log_is_an_error_for_every_source() {
    for dirty in [Dirty::OneEntry, Dirty::StaleBeforeTail] {
        let image = dirty.build(&Spec::default());
        let log = image.spec.log_offset;
        for at in (log..log + 64 * KIB).step_by(4096) {
            let bytes = image.bytes.clone();
            let (requests, read) = (AtomicU64::new(0), AtomicU64::new(0));
            let reader = Counted { bytes, knows_holes: false, fails_at: Some(at + 9), requests, read };
            let opened = Disk::open(Source::from_reader(reader).unwrap(), &OpenOptions::new());
            assert_eq!(opened.unwrap_err().category(), Category::Io, "{dirty:?}, {at:#x}");
        }
    }
}

#[test]
fn bytes_are_borrowed_if_the_source_can() {
    let image = Spec::empty(4 * MIB).block(1, Block::full()).build();
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    image.bytes.write_file(&path).unwrap();
    for door in Door::ALL {
        let disk = Arc::new(Disk::open(door.source(&path).unwrap(), &OpenOptions::new()).unwrap());
        let borrows = matches!(door, Door::Memory | Door::Map);
        assert_eq!((disk.can_borrow(), disk.image().source().can_borrow()), (borrows, borrows), "{door:?}");
        assert_eq!(disk.image().source().is_mapped(), door == Door::Map);
        let slice = disk.slice(MIB + 1, 4096);
        let shared = disk.shared_slice(MIB + 1, 4096);
        if borrows {
            assert_eq!(slice.unwrap().unwrap(), pattern(image.spec.seed, MIB + 1, 4096));
            assert_eq!(shared.unwrap().unwrap()[..], pattern(image.spec.seed, MIB + 1, 4096));
        } else {
            for error in [slice.unwrap_err(), shared.unwrap_err()] {
                assert!(matches!(error.kind(), ErrorKind::NotBorrowable), "{door:?}: {error}");
                assert_eq!((error.category(), error.rule()), (Category::InvalidInput, None));
            }
        }
        // Zeros do not depend on the source.
        assert_eq!(disk.slice(0, 512).unwrap(), Some(&[0; 512][..]), "{door:?}");
    }
}

/// Shared bytes go to other threads and outlive the objects from which they were made.
#[test]
fn shared_bytes_keep_their_disk_alive() {
    fn is_static<T: Send + Sync + 'static + Clone + AsRef<[u8]>>(_: &T) {}
    let base = Spec::empty(4 * MIB).block(1, Block::full());
    let child = Dirty::OneEntry.build(&Spec::child_of(&base, "base").block(1, Block::partial(&run(0..8))));
    let chain = [&child, &base.build()];
    let disk = Arc::new(open_chain(&chain).unwrap());
    let expected = crate::lab::Expected::of(&chain);
    let mut at = 0;
    let mut all: Vec<SharedBytes> = Vec::new();
    while let Some(bytes) = disk.shared_slice(at, MIB).unwrap() {
        is_static(&bytes);
        assert!(!bytes.is_empty());
        assert_eq!(bytes.offset(), at);
        at += wide(bytes.len());
        all.push(bytes);
    }
    assert_eq!(at, disk.size());
    let kept = Arc::downgrade(&disk);
    drop(disk);
    let found = std::thread::spawn(move || {
        all.iter().for_each(|bytes| bytes.check_lost().unwrap());
        all.iter().flat_map(|bytes| bytes.to_vec()).collect::<Vec<u8>>()
    });
    assert!(found.join().unwrap() == expected.read(0..4 * MIB));
    assert!(kept.upgrade().is_none(), "the last of the bytes takes the disk with it");
}

/// Of files that are missing, no images, or damaged where a read finds it. The alternate text leaves the path out.
#[test]
fn errors_name_the_file() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    let named = |error: &Error| {
        assert_eq!(error.file(), Some(path.as_path()));
        assert_eq!(error.to_string(), format!("{}: {error:#}", path.display()));
    };
    named(&Source::open(&path).unwrap_err());
    named(&Source::load(&path).unwrap_err());
    std::fs::write(&path, [b'x'; 5000]).unwrap();
    let source = || Source::open(&path).unwrap();
    named(&Disk::open(source(), &OpenOptions::new()).unwrap_err());
    named(&Opened::identity(&source()).unwrap_err());
    named(&LogReport::read(source()).unwrap_err());
    let mut image = Spec::empty(8 * MIB).block(1, Block::full()).build();
    let entry = image.block_entry_at(1);
    image.bytes.write(entry, &[0xFF; 8]);
    image.bytes.write_file(&path).unwrap();
    let other = open_chain(&[&Spec::default().build()]).unwrap().fingerprint();
    for door in [Door::Memory, Door::Map, Door::Open] {
        let disk = Disk::open(door.source(&path).unwrap(), &OpenOptions::new()).unwrap();
        named(&disk.read_at(&mut [0; 10], MIB).unwrap_err());
        named(&disk.image().payload_block(1).unwrap_err());
        named(&Disk::open(door.source(&path).unwrap(), &OpenOptions::new().expect(other.clone())).unwrap_err());
    }
    // A reader has no path.
    let disk = Disk::open(Door::Reader.source(&path).unwrap(), &OpenOptions::new()).unwrap();
    let error = disk.read_at(&mut [0; 10], MIB).unwrap_err();
    assert_eq!((error.file(), error.to_string()), (None, format!("{error:#}")));
}

#[test]
fn disk_range_acts_like_a_disk() {
    let spec = Spec::empty(8 * MIB).block(1, Block::full()).block(2, Block::full());
    let image = spec.build();
    let disk = Arc::new(open_chain(&[&image]).unwrap());
    let part = DiskRange::new(Arc::clone(&disk), MIB + 512..3 * MIB + 100).unwrap();
    assert_eq!((part.start(), part.size()), (MIB + 512, 2 * MIB - 412));
    let expected = crate::lab::Expected::of(&[&image]).read(MIB + 512..3 * MIB + 100);
    let mut found = vec![0xA5; expected.len() + 10];
    assert_eq!(part.read_at(&mut found, 0).unwrap(), expected.len());
    assert!(found[..expected.len()] == expected && found[expected.len()..] == [0xA5; 10]);
    assert_eq!(part.read_at(&mut found[..7], part.size() - 3).unwrap(), 3);
    assert_eq!(part.read_at(&mut found[..7], part.size()).unwrap(), 0);
    assert_eq!(part.read_at(&mut found[..7], u64::MAX).unwrap(), 0);
    assert_eq!(part.slice(5, 600).unwrap().unwrap(), &expected[5..605]);
    assert_eq!(part.slice(part.size() - 1, 2).unwrap_err().category(), Category::InvalidInput);
    let extents: Vec<Run> = part.extents(..).collect::<Result<_, _>>().unwrap();
    assert_eq!(extents.iter().map(|run| run.len).sum::<u64>(), part.size());
    assert_eq!((extents[0].start, extents[0].at), (0, Location::File(image.block_at(1) + 512)));
    let runs: Vec<Run> = part.runs(..).collect::<Result<_, _>>().unwrap();
    let found: Vec<_> = runs.iter().map(|run| (run.start, run.len)).collect();
    assert_eq!(found, [(0, 2 * MIB - 512), (2 * MIB - 512, 100)]);
    assert_eq!(part.extent_at(part.size() - 50, 10).unwrap().unwrap().at, Location::Zero);
    assert_eq!(part.extent_at(part.size(), 10).unwrap(), None);
    let mut reader = part.reader();
    reader.seek(SeekFrom::End(-4)).unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, expected[expected.len() - 4..]);
    let mut owned: Reader<Arc<Disk>> = part.into_reader();
    drop(disk);
    assert_eq!(owned.fill_buf().unwrap()[..100], expected[..100]);
    let mut all = Vec::new();
    owned.read_to_end(&mut all).unwrap();
    assert!(all == expected);
    let disk = open_chain(&[&image]).unwrap();
    assert_eq!(DiskRange::new(&disk, 0..8 * MIB + 1).unwrap_err().category(), Category::InvalidInput);
}

/// Iterators that own the disk return the same items as those that borrow it.
#[test]
fn iterators_may_own_the_disk() {
    let image = Dirty::OneEntry.build(&Spec::empty(8 * MIB).block(1, Block::full()).block(5, Block::full()));
    let disk = Arc::new(open_chain(&[&image]).unwrap());
    let borrowed: Vec<Run> = disk.extents(..).collect::<Result<_, _>>().unwrap();
    let mut owned = vhdx_mmap::Extents::new(Arc::clone(&disk), ..);
    assert_eq!(owned.by_ref().collect::<Result<Vec<_>, _>>().unwrap(), borrowed);
    for (at, extent) in borrowed.iter().map(|extent| (extent.start, extent)) {
        assert_eq!(disk.extent_at(at, u64::MAX).unwrap().as_ref(), Some(extent));
        let short = disk.extent_at(at, 3).unwrap().unwrap();
        assert_eq!((short.start, short.len, short.at), (at, 3, extent.at));
    }
    let mut segments = vhdx_mmap::Segments::new(Arc::clone(&disk), ..);
    let mut at = 0;
    let mut expected = disk.segments(..);
    while let Some(segment) = segments.next_segment() {
        let segment: Segment<'_> = segment.unwrap();
        assert_eq!(Some(segment), expected.next().transpose().unwrap());
        at += segment.len();
    }
    assert_eq!((at, expected.next().is_none()), (disk.size(), true));
}

#[test]
fn fingerprint_detects_other_files() {
    let base = Spec::empty(4 * MIB).block(1, Block::full());
    let child = Spec::child_of(&base, "base").block(2, Block::full());
    let (base, child) = (base.build(), child.build());
    let open = |child: &Image, base: &Image, expected: Option<vhdx_mmap::ChainFingerprint>| {
        let parent = source(base);
        let parents = Parents::With(Arc::new(move |_| Ok(Some(parent.clone()))));
        let options = OpenOptions::new().parents(parents);
        Disk::open(source(child), &expected.into_iter().fold(options, OpenOptions::expect))
    };
    let disk = open(&child, &base, None).unwrap();
    let fingerprint = disk.fingerprint();
    assert_eq!(fingerprint.layers.len(), 2);
    assert_eq!(fingerprint.layers[1].data_write_guid, base.spec.data_write_guid);
    assert_eq!(fingerprint.layers[0].len, child.bytes.len());
    let text = serde_json::to_string(&fingerprint).unwrap();
    let fingerprint: vhdx_mmap::ChainFingerprint = serde_json::from_str(&text).unwrap();
    assert_eq!(open(&child, &base, Some(fingerprint.clone())).unwrap().fingerprint(), fingerprint);

    let refused = |child: &Image, base: &Image| {
        let error = open(child, base, Some(fingerprint.clone())).unwrap_err();
        let ErrorKind::OtherFiles { what } = error.kind() else { panic!("{error}") };
        (error.layer(), *what)
    };
    let mut longer = base.clone();
    longer.bytes.write(base.bytes.len() + MIB - 1, &[0]);
    assert_eq!(refused(&child, &longer), (1, "length"));
    let dirty = Dirty::OneEntry.build(&child.spec);
    assert_eq!(refused(&dirty, &base).0, 0);
    // A chain that has lost its base, and one with another layer.
    let alone = Disk::open(source(&child), &OpenOptions::new().expect(fingerprint.clone())).unwrap_err();
    assert!(matches!(alone.kind(), ErrorKind::OtherFiles { what: "number of layers" }), "{alone}");
    let same_log = |dirty: Dirty| open_chain(&[&dirty.build(&base.spec)]).unwrap().fingerprint().layers[0].log_crc32c;
    assert_eq!(same_log(Dirty::OneEntry), same_log(Dirty::OneEntry));
    assert_ne!(same_log(Dirty::OneEntry), None);
}

/// Changes to a file that is read piece by piece are seen when it is read, and reported at the end.
#[test]
fn file_in_use_can_be_opened() {
    use std::os::unix::fs::FileExt;

    let image = Spec::empty(4 * MIB).block(1, Block::full()).build();
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    image.bytes.write_file(&path).unwrap();
    let disk = Disk::open(Source::open(&path).unwrap(), &OpenOptions::new()).unwrap();
    assert!(!disk.image().source().has_changed().unwrap());
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"new", image.block_at(1) + 70).unwrap();
    file.set_len(image.bytes.len() + MIB).unwrap();
    let mut found = [0; 3];
    disk.read_at(&mut found, MIB + 70).unwrap();
    assert_eq!(&found, b"new");
    assert!(disk.image().source().has_changed().unwrap());
}

#[test]
fn identity_needs_only_headers() {
    let image = Spec::empty(4 * MIB).build();
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    image.bytes.write_file(&path).unwrap();
    for source in [map(&path), Source::open(&path).unwrap(), Source::from_vec(image.bytes.read(0, 192 << 10))] {
        let header = Opened::identity(&source).unwrap();
        assert_eq!(header.data_write_guid, image.spec.data_write_guid);
        assert!(!header.is_dirty());
    }
    assert_eq!(Opened::identity(&Source::from_vec(vec![0; 1 << 20])).unwrap_err().category(), Category::NotVhdx);
    let dirty = Dirty::OneEntry.build(&image.spec);
    let header = Opened::identity(&source(&dirty)).unwrap();
    assert!(header.is_dirty());
    assert_eq!(Opened::open(source(&dirty), LogPolicy::Refuse).unwrap_err().category(), Category::DirtyLog);
    assert_eq!(size(4), 4);
}

/// Bytes of an image, of which a range cannot be read.
struct Failing(SparseBytes, std::ops::Range<u64>, io::ErrorKind);

impl ReadAt for Failing {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset < self.1.end && offset + wide(buf.len()) > self.1.start {
            return Err(self.2.into());
        }
        buf.copy_from_slice(&self.0.read(offset, buf.len()));
        Ok(())
    }
}

#[test]
fn entries_that_cannot_be_read_for_one_cause_are_one_loss() {
    let image = Spec::empty(2000 * MIB).build();
    let page = image.spec.bat_offset + PAGE;
    let failing = Failing(image.bytes, page..page + PAGE, io::ErrorKind::PermissionDenied);
    let options = OpenOptions::new().strictness(Strictness::Salvage);
    let disk = Disk::open(Source::from_reader(failing).unwrap(), &options).unwrap();
    let losses: Vec<_> = disk.losses(..).map(|loss| (loss.range.start, loss.range.end)).collect();
    assert_eq!(losses, [(512 * MIB, 1024 * MIB)]);
}

/// A reader of a file, which is not known to be one.
struct FileReader(std::fs::File);

impl ReadAt for FileReader {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, buf, offset)
    }
}

#[test]
fn truncated_file_of_a_reader_is_lost_from_its_end() {
    let folder = temp_dir();
    let image = Spec::empty(8 * MIB).block(1, Block::full()).build();
    let path = folder.path().join("disk.vhdx");
    image.bytes.write_file(&path).unwrap();
    let source = Source::from_reader(FileReader(std::fs::File::open(&path).unwrap())).unwrap();
    let disk = Disk::open(source, &OpenOptions::new()).unwrap();
    let end = image.block_at(1) + 5000;
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(end).unwrap();
    let error = disk.read_at(&mut vec![0; 64 << 10], MIB).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Lost), "{error}");
    assert_eq!(error.offset(), Some(end));
    // It does not look like the end of the disk.
    let mut content = Vec::new();
    let error = disk.reader().read_to_end(&mut content).unwrap_err();
    assert_ne!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// The file ends in the middle of a page of a segment that was returned before the error: the loss is the error.
#[test]
fn segments_that_end_with_an_error_report_lost_bytes_before_it() {
    let folder = temp_dir();
    let mut image = Spec::empty(8 * MIB).block(0, Block::full()).build();
    image.set_bat(1, 5);
    let path = folder.path().join("disk.vhdx");
    image.bytes.write_file(&path).unwrap();
    let disk = Disk::open(map(&path), &OpenOptions::new()).unwrap();
    let whole: Vec<_> = disk.segments(..).map(|segment| segment.map_err(|error| error.to_string())).collect();
    assert!(whole.last().unwrap().as_ref().unwrap_err().contains("reserved"), "{whole:?}");
    let end = image.bytes.len() - 3000;
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(end).unwrap();
    let error = disk.segments(..).last().unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Lost), "{error}");
    assert_eq!(error.offset(), Some(end));
}

#[test]
fn losses_of_an_ancestor_count_layers_from_the_ancestor() {
    let base = Spec::empty(8 * MIB);
    let middle = Spec::child_of(&base, "base.vhdx").block(2, Block::full());
    let top = Spec::child_of(&middle, "middle.vhdx").block(1, Block::full()).build();
    let middle = source(&middle.build());
    let find = move |request: &vhdx_mmap::ParentRequest<'_>| Ok((request.layer == 0).then(|| middle.clone()));
    let options = OpenOptions::new().parents(Parents::With(Arc::new(find))).strictness(Strictness::Salvage);
    let disk = Disk::open(source(&top), &options).unwrap();
    let layers = |disk: &Disk| disk.losses(..).map(|loss| loss.reason.layer()).collect::<Vec<_>>();
    let (of_all, of_ancestor) = (layers(&disk), layers(&disk.ancestor(1).unwrap()));
    assert!(!of_all.is_empty() && of_all.iter().all(|layer| *layer == 1), "{of_all:?}");
    assert!(!of_ancestor.is_empty() && of_ancestor.iter().all(|layer| *layer == 0), "{of_ancestor:?}");
}
