//! The work of the sweep: an image in a file, changed in one way after the other, on every core.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

use tempfile::TempDir;
use vhdx_mmap::{Disk, ErrorKind, OpenOptions, Parents, Source, Structure};

use super::super::before_the_end;
use super::{Place, is_detected_by_check};
use crate::kit::FileBytes;
use crate::kit::builder::Image;
use crate::kit::optional::stride;
use crate::kit::oracle::{Fault, LogPolicy, Oracle};
use crate::lab::{Expected, file_of, size};
use crate::support::{map, temp_dir};
use crate::watchdog::PATIENCE;

/// A change to an image, in one structure.
#[derive(Clone, Debug)]
pub(super) struct Mutant {
    pub(super) place: Place,
    pub(super) patches: Vec<(u64, Vec<u8>)>,
}

/// Result of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// The disk reads as if nothing had happened.
    Same,
    /// The image cannot be opened, or not be read to its end.
    Refused,
    /// It reads differently, as it must.
    Other,
}

/// Number of changes of each structure with each outcome.
#[derive(Debug, Default)]
pub(super) struct Results {
    counts: BTreeMap<(Outcome, Place), u32>,
    /// Images that read differently without a finding of the check: the changed structures.
    pub(super) undetected: Vec<Place>,
    /// Failures.
    wrong: Vec<String>,
}

impl Results {
    fn add(&mut self, other: Self) {
        for (key, count) in other.counts {
            *self.counts.entry(key).or_default() += count;
        }
        self.undetected.extend(other.undetected);
        self.wrong.extend(other.wrong);
    }

    /// Returns the number of changes of a structure with an outcome.
    pub(super) fn of(&self, outcome: Outcome, place: Place) -> u32 {
        self.counts.get(&(outcome, place)).copied().unwrap_or(0)
    }

    /// Asserts that at least this number of all changes has an outcome, or of those of them that are tried.
    #[track_caller]
    pub(super) fn assert_at_least(&self, outcome: Outcome, least: u32) {
        let count: u32 = self.counts.iter().filter(|((found, _), _)| *found == outcome).map(|(_, count)| count).sum();
        let least = least / u32::try_from(stride()).unwrap();
        assert!(count >= least, "{outcome:?} only {count} times: {:?}", self.counts);
    }
}

/// Applies each of the changes to an image alone, and returns the results.
#[track_caller]
pub(super) fn sweep(image: &Image, parents: &[Image], mutants: &[Mutant]) -> Results {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let share = mutants.len().div_ceil(threads).max(1);
    let results = std::thread::scope(|scope| {
        let (done, reports) = channel();
        let work = |mutants| {
            let done = done.clone();
            scope.spawn(move || Lab::new(image, parents).judge_all(mutants, &done))
        };
        let workers: Vec<_> = mutants.chunks(share).map(work).collect();
        // The watch ends when no worker reports any more.
        drop(done);
        scope.spawn(move || watch(&reports));
        let mut results = Results::default();
        workers.into_iter().for_each(|worker| results.add(worker.join().unwrap()));
        results
    });
    let wrong = &results.wrong;
    assert!(
        wrong.is_empty(),
        "{} wrong of {}:\n{}",
        wrong.len(),
        mutants.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    results
}

/// Ends the process if nothing is done for too long: a thread that hangs cannot be stopped otherwise.
fn watch(reports: &Receiver<()>) {
    let mut count = 0_u64;
    loop {
        match reports.recv_timeout(PATIENCE) {
            Ok(()) => count += 1,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                crate::support::say(&format!("one of the mutants about number {count} hangs\n"));
                std::process::abort();
            }
        }
    }
}

/// An image in a file, with its expected content.
struct Lab<'a> {
    image: Image,
    parents: &'a [Image],
    content: Expected,
    path: PathBuf,
    file: File,
    options: OpenOptions,
    _folder: TempDir,
}

impl<'a> Lab<'a> {
    fn new(image: &Image, parents: &'a [Image]) -> Self {
        let folder = temp_dir();
        let path = folder.path().join("0");
        image.bytes.write_file(&path).unwrap();
        let mapped = |(layer, parent): (usize, &Image)| {
            let path = folder.path().join((layer + 1).to_string());
            parent.bytes.write_file(&path).unwrap();
            map(&path)
        };
        let sources: Vec<Source> = parents.iter().enumerate().map(mapped).collect();
        let finder = Parents::With(Arc::new(move |request| Ok(sources.get(request.layer).cloned())));
        let chain: Vec<&Image> = std::iter::once(image).chain(parents).collect();
        Self {
            image: image.clone(),
            parents,
            content: Expected::of(&chain),
            file: File::options().write(true).open(&path).unwrap(),
            path,
            options: OpenOptions::new().parents(finder),
            _folder: folder,
        }
    }

    fn put(&mut self, patches: &[(u64, Vec<u8>)]) {
        for (at, bytes) in patches {
            self.image.bytes.write(*at, bytes);
            self.file.write_all_at(bytes, *at).unwrap();
        }
    }

    fn judge_all(mut self, mutants: &[Mutant], done: &Sender<()>) -> Results {
        let mut results = Results::default();
        for (number, mutant) in mutants.iter().enumerate() {
            let old = |(at, bytes): &(u64, Vec<u8>)| (*at, self.image.bytes.read(*at, bytes.len()));
            let before: Vec<_> = mutant.patches.iter().map(old).collect();
            self.put(&mutant.patches);
            match self.judge(mutant.place, number) {
                Ok(outcome) => {
                    *results.counts.entry((outcome, mutant.place)).or_default() += 1;
                    if outcome == Outcome::Other && !is_detected_by_check(&self.image) {
                        results.undetected.push(mutant.place);
                    }
                }
                Err(wrong) => {
                    let (at, bytes) = &mutant.patches[0];
                    let brief = &bytes[..bytes.len().min(8)];
                    results.wrong.push(format!("{:?} at {at:#x}, {brief:x?}: {wrong}", mutant.place));
                }
            }
            self.put(&before);
            done.send(()).unwrap();
        }
        results
    }

    fn judge(&self, place: Place, number: usize) -> Result<Outcome, String> {
        let disk = Disk::open(map(&self.path), &self.options);
        let outcome = disk.as_ref().map_or(Outcome::Refused, |disk| self.read(disk));
        // Most of a header and of the log only counts for the checksum, and there are many changes of it: some are
        // enough.
        let is_summed = matches!(place, Place::Header | Place::RegionTable | Place::LogEntry);
        if outcome != Outcome::Same || !is_summed || number.is_multiple_of(16) {
            let step = if is_summed { 397 } else { 41 };
            self.compare(disk, step, number)?;
        }
        Ok(outcome)
    }

    /// Reads the whole disk.
    fn read(&self, disk: &Disk) -> Outcome {
        let (mut at, mut is_same) = (0, disk.size() == self.content.size());
        for segment in disk.segments(..) {
            let Ok(segment) = segment else { return Outcome::Refused };
            is_same = is_same && self.content.differs(at, segment).is_none();
            at += segment.len();
        }
        if is_same { Outcome::Same } else { Outcome::Other }
    }

    /// Compares the result with that of the naive reader.
    fn compare(&self, disk: vhdx_mmap::Result<Disk>, step: usize, number: usize) -> Result<(), String> {
        let mut files: Vec<&dyn FileBytes> = std::iter::once(&self.image).chain(self.parents).map(file_of).collect();
        // An image that has become a base is not asked for parents.
        files.truncate(disk.as_ref().map_or(files.len(), |disk| disk.layers().len()));
        let (disk, oracle) = match (disk, Oracle::open(&files, LogPolicy::Replay)) {
            (Ok(disk), Ok(oracle)) => (disk, oracle),
            (Err(_), Err(_)) => return Ok(()),
            (Err(error), Ok(_)) => return Err(format!("refused, though it can be read: {error}")),
            (Ok(_), Err(fault)) => return Err(format!("opened, though it is {fault:?}")),
        };
        let below = Oracle::open(&files[1..], LogPolicy::Replay).ok().filter(|_| files.len() > 1);
        if disk.size() != oracle.size() {
            return Err(format!("{} bytes instead of {}", disk.size(), oracle.size()));
        }
        let sector_size = oracle.sector_size();
        let sectors = disk.size() / sector_size;
        let first = u64::try_from(number % step).unwrap();
        let between = (first..sectors.min(4200)).step_by(step);
        let borders = [0, 1, 8, 9, 2047, 2048, 4095, 4096, 4101, 4136, 4159, sectors.saturating_sub(1)];
        for sector in between.chain(borders).filter(|sector| *sector < sectors) {
            let (at, length) = (sector * sector_size, size(sector_size));
            let mut found = vec![0xA5; length];
            match (disk.read_at(&mut found, at), oracle.read(at, length)) {
                (Ok(_), Ok(expected)) if found == expected => {}
                (Err(_), Err(_)) => {}
                // A part of a block that is truncated, or of which the parent has a part, may be readable.
                (Ok(_), Err(Fault::Corrupt("payload block past end of file")))
                    if before_the_end(&oracle, at, length).as_ref() == Some(&found)
                        || below.as_ref().is_some_and(|below| below.read(at, length).as_ref() == Ok(&found)) => {}
                // A bitmap that overlaps another structure is not believed.
                (Err(error), Ok(_)) if is_misplaced_bitmap(&error) => {}
                (read, expected) => return Err(format!("sector {sector}: {read:?} instead of {:?}", expected.is_ok())),
            }
        }
        Ok(())
    }
}

fn is_misplaced_bitmap(error: &vhdx_mmap::Error) -> bool {
    matches!((error.structure(), error.kind()), (Structure::SectorBitmap(_), ErrorKind::Overlap { .. }))
}
