//! A small file system of each kind is damaged. Every call ends within its bounds, no panic escapes, and every answer
//! is the same again, and from several threads.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::fmt::{Debug, Display};
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use arbitrary::Arbitrary;
use vhdx_files::{FileKind, Volume, VolumeOptions};
use vhdx_mmap::{Disk, DiskRange, OpenOptions, ReadAt, Source};

use crate::heap::peak_of;
use crate::packed::{PAGE, Packed, all};

/// Most bytes that a call may read of the image, besides those of a journal: what the library allows structures, and
/// as much again for what it reads to find them.
const MOST_READ: u64 = 600 << 20;

/// Most memory that a call may take, besides a share of what it has read: a damaged directory can be large.
const MOST_HEAP: usize = 64 << 20;

/// How much of what a call has read may be in memory at once, as a factor.
const HEAP_OF_READ: usize = 8;

/// After so many bytes, an input is done: it has shown that it ends, and others are faster.
const ENOUGH: u64 = 128 << 20;

/// Most files that are looked at.
const MOST_FILES: usize = 150;

/// Most runs of a file that are looked at.
const MOST_RUNS: usize = 4000;

/// What is done to which file system.
#[derive(Arbitrary, Debug)]
pub struct Input {
    base: u8,
    flags: u8,
    patches: Vec<Patch>,
}

impl Input {
    const WITHOUT_REPAIR: u8 = 1;
    const IN_THREADS: u8 = 2;
    const WITHOUT_JOURNAL: u8 = 4;

    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Damage to a page of the file system.
#[derive(Arbitrary, Debug)]
struct Patch {
    page: u16,
    at: u16,
    change: Change,
}

#[derive(Arbitrary, Debug)]
enum Change {
    Byte(u8),
    Flip(u8),
    Add(i8),
    Bytes([u8; 4]),
    /// A number at the limit of what has room somewhere, with its lowest or its highest byte first.
    Limit(u8, bool),
    /// What another page has.
    Page(u16),
    /// What another place of the same page has.
    Copy(u16, u8),
}

const LIMITS: [u64; 16] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x1000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0xffff_ffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_f000,
    u64::MAX,
];

/// The file of an image, with other pages in some places.
struct Changed {
    base: &'static Packed,
    pages: BTreeMap<u64, Vec<u8>>,
    read: Arc<AtomicU64>,
}

impl ReadAt for Changed {
    fn len(&self) -> io::Result<u64> {
        Ok(self.base.length)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.base.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        let (mut buffer, mut offset) = (buffer, offset);
        while !buffer.is_empty() {
            let within = (offset % PAGE as u64) as usize;
            let (piece, rest) = buffer.split_at_mut(buffer.len().min(PAGE - within));
            let at = offset - within as u64;
            match self.pages.get(&at).or_else(|| self.base.pages.get(&at)) {
                Some(page) => piece.copy_from_slice(&page[within..within + piece.len()]),
                None => piece.fill(0),
            }
            offset += piece.len() as u64;
            buffer = rest;
        }
        Ok(())
    }
}

fn damaged(base: &'static Packed, input: &Input) -> BTreeMap<u64, Vec<u8>> {
    let place_of = |page: u16| base.places[usize::from(page) % base.places.len()];
    let mut pages: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for patch in &input.patches {
        let place = place_of(patch.page);
        let page = pages.entry(place).or_insert_with(|| base.pages[&place].clone());
        let at = usize::from(patch.at) % PAGE;
        let old = page.clone();
        let mut put = |at: usize, bytes: &[u8]| {
            page[at..].iter_mut().zip(bytes).for_each(|(old, new)| *old = *new);
        };
        match &patch.change {
            Change::Byte(byte) => put(at, &[*byte]),
            Change::Flip(bit) => put(at, &[old[at] ^ (1 << (bit % 8))]),
            Change::Add(number) => put(at, &[old[at].wrapping_add_signed(*number)]),
            Change::Bytes(bytes) => put(at, bytes),
            Change::Limit(which, is_big) => {
                let limit = LIMITS[usize::from(which % 16)];
                let width = 1 << (which >> 4 & 3);
                match is_big {
                    true => put(at, &limit.to_be_bytes()[8 - width..]),
                    false => put(at, &limit.to_le_bytes()[..width]),
                }
            }
            Change::Page(other) => put(0, &base.pages[&place_of(*other)]),
            Change::Copy(from, length) => {
                let from = usize::from(*from) % PAGE;
                put(at, &old[from..PAGE.min(from + usize::from(*length))]);
            }
        }
    }
    if !input.is(Input::WITHOUT_REPAIR) {
        pages.values_mut().for_each(|page| (base.repair)(page));
    }
    pages
}

/// The answers of a volume, as numbers that stand for them.
struct Survey<'v> {
    volume: &'v dyn Volume,
    read: &'v AtomicU64,
    /// Whether nothing else runs, so that memory and reads are those of the calls made here.
    is_alone: bool,
    begin: u64,
    answers: Vec<u64>,
}

impl Survey<'_> {
    /// Makes a call, holds it to its bounds, and keeps the answer.
    fn ask<T: Debug, E: Display>(&mut self, what: &str, call: impl FnOnce() -> Result<T, E>) -> Option<T> {
        let answer = bounded(self.read, self.is_alone, what, call);
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        match &answer {
            Ok(value) => format!("{value:?}").hash(&mut hasher),
            Err(error) => error.to_string().hash(&mut hasher),
        }
        self.answers.push(hasher.finish());
        answer.ok()
    }

    fn is_enough(&self) -> bool {
        self.read.load(Ordering::Relaxed) - self.begin > ENOUGH
    }

    fn all(mut self) -> Vec<u64> {
        let volume = self.volume;
        let about = volume.about().clone();
        self.ask("about", || Ok::<_, String>(&about));
        let mut known = HashSet::from([volume.root()]);
        let mut todo = vec![volume.root()];
        while let Some(node) = todo.pop() {
            if self.is_enough() {
                break;
            }
            let metadata = self.ask("metadata", || volume.metadata(node));
            self.ask("attributes", || volume.attributes(node));
            self.ask("link", || volume.link_target(node));
            let streams = self.ask("streams", || volume.streams(node)).unwrap_or_default();
            let names = streams.iter().map(|stream| Some(stream.name.as_str()));
            for name in std::iter::once(None).chain(names.take(4)) {
                self.content(node, name);
            }
            let is_directory = metadata.is_none_or(|metadata| metadata.kind == FileKind::Directory);
            if let Some(entries) = self.ask("entries", || volume.entries(node)) {
                assert!(is_directory, "entries of what is no directory");
                for (number, entry) in entries.into_iter().enumerate() {
                    if number % 16 == 0 {
                        self.ask("find", || volume.find(node, &entry.name));
                    }
                    if known.len() < MOST_FILES && known.insert(entry.node) {
                        todo.push(entry.node);
                    }
                }
            }
        }
        self.answers
    }

    fn content(&mut self, node: vhdx_files::Node, stream: Option<&str>) {
        let volume = self.volume;
        let Some(content) = self.ask("open", || volume.open(node, stream)) else { return };
        let size = content.size();
        let mut buffer = vec![0; 5000];
        for offset in [0, 4090, size / 2, size.saturating_sub(100)] {
            let read = self.ask("read", || {
                let read = content.read_at(&mut buffer, offset)?;
                Ok::<_, vhdx_files::Error>(buffer[..read].to_vec())
            });
            if let Some(read) = read {
                assert_eq!(read.len() as u64, size.saturating_sub(offset).min(5000), "at {offset} of {size}");
            }
        }
        let mut offset = 0;
        for _ in 0..MOST_RUNS {
            let Some((length, _)) = content.run_at(offset) else {
                assert_eq!(offset, size, "runs end before the content does");
                break;
            };
            assert!(length > 0 && offset + length <= size, "a run of {length} bytes at {offset} of {size}");
            offset += length;
        }
        if let Some((range, runs)) = content.runs() {
            for run in runs.iter().take(MOST_RUNS) {
                let is_inside =
                    run.at.is_none_or(|at| at.checked_add(run.length).is_some_and(|end| end <= range.size()));
                assert!(is_inside, "{run:?} lies outside of the volume");
            }
        }
    }
}

fn bounded<T>(read: &AtomicU64, is_alone: bool, what: &str, call: impl FnOnce() -> T) -> T {
    let before = read.load(Ordering::Relaxed);
    let (done, heap) = peak_of(call);
    if is_alone {
        let read = read.load(Ordering::Relaxed) - before;
        assert!(read <= MOST_READ, "{what} has read {read} bytes");
        let most = MOST_HEAP + usize::try_from(read).expect("less than the bound") * HEAP_OF_READ;
        assert!(heap <= most, "{what} took {heap} bytes of memory, after reading {read}");
    }
    done
}

/// Damages a file system, and uses what is left.
pub fn run(input: &Input) {
    static BASES: OnceLock<Vec<Packed>> = OnceLock::new();
    let bases = BASES.get_or_init(all);
    let base = &bases[usize::from(input.base) % bases.len()];
    let read = Arc::new(AtomicU64::new(0));
    let file = Changed { base, pages: damaged(base, input), read: Arc::clone(&read) };
    let source = Source::from_reader(file).expect("a length");
    let disk = Arc::new(Disk::open(source, &OpenOptions::new()).expect("a sound image"));
    let range = DiskRange::whole(disk);
    let options = VolumeOptions::new().ignore_journal(input.is(Input::WITHOUT_JOURNAL));
    let opening = || vhdx_files::open_with(range.clone(), &options).map_err(|error| error.to_string());
    let open = || bounded(&read, true, "opening", opening);
    let opened = open();
    let again = open();
    let of = |opened: &Result<Box<dyn Volume>, String>| opened.as_ref().map(|_| ()).map_err(Clone::clone);
    assert_eq!(of(&opened), of(&again), "{}: opened once more", base.name);
    let (Ok(volume), Ok(again)) = (opened, again) else { return };
    let survey = |volume: &dyn Volume, is_alone: bool| {
        let begin = read.load(Ordering::Relaxed);
        let survey = Survey { volume, read: &read, is_alone, begin, answers: Vec::new() };
        let answers = survey.all();
        (read.load(Ordering::Relaxed) - begin <= ENOUGH).then_some(answers)
    };
    let Some(answers) = survey(&*volume, true) else { return };
    if input.is(Input::IN_THREADS) {
        thread::scope(|scope| {
            let others: Vec<_> = (0..2).map(|_| scope.spawn(|| survey(&*volume, false))).collect();
            for other in others {
                // What one of two threads reads may be enough for both.
                let other = other.join().expect("no panic");
                assert!(other.is_none_or(|other| other == answers), "{}: another thread", base.name);
            }
        });
    } else {
        let other = survey(&*again, true);
        assert!(other.is_none_or(|other| other == answers), "{}: asked again", base.name);
    }
    if !input.is(Input::WITHOUT_JOURNAL) {
        let size = range.size();
        let mut owners = 0_u64;
        let mut visit = |owner: vhdx_files::Owner| {
            owners += 1;
            let is_inside = |(_, at, length): &(u64, u64, u64)| at.checked_add(*length).is_some_and(|end| end <= size);
            assert!(owner.parts.iter().all(is_inside), "{:?}", owner.parts);
            let is_enough = owners > 200 || read.load(Ordering::Relaxed) > 4 * ENOUGH;
            if is_enough { Err(()) } else { Ok(()) }
        };
        let _ = vhdx_files::locate(&*volume, std::slice::from_ref(&(0..size)), &mut |_| {}, &mut visit);
    }
}

/// Lets panics of readers be caught, as the library does. Those of the target itself still end it.
pub fn let_readers_panic() {
    let end = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !vhdx_files::is_panic_caught() {
            end(panic);
        }
    }));
}
