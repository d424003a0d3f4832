//! `vhdx extract`.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;

use rayon::ThreadPoolBuilder;
use uuid::Uuid;
use vhdx_mmap::ops::{self, ExtractError, TargetContent, vhd};
use vhdx_mmap::{Disk, Layer, Segment};

use crate::args::{Common, DiskFormat, ExtractArgs};
use crate::exit::{Exit, Failure};
use crate::open::{self, actual_size};
use crate::progress::Work;
use crate::size::human;
use crate::target::Destination;
use crate::term::{self, escape};

pub(crate) fn run(args: &ExtractArgs, common: &Common) -> Result<Exit, Failure> {
    let disk = open::disk(&args.image, common)?;
    let range = match args.range {
        Some(range) => range.within(disk.size()).map_err(Failure::usage)?,
        None => 0..disk.size(),
    };
    if args.format == DiskFormat::Vhd && range.is_empty() {
        return Err(Failure::usage("a VHD of no bytes is none"));
    }
    let trailer = Trailer::new(&disk, &range, args.format);
    for note in trailer.notes.iter().filter(|_| !common.quiet) {
        term::tell("note", term::HINT, note);
    }
    let destination = Destination::new(&args.out, &disk, args.force)?;
    let work = Work::new(range.end.saturating_sub(range.start), common.quiet);
    let mut data = 0;
    if !destination.is_stream() {
        // From here on there is something to clean up.
        work.listen().map_err(|error| Failure::new(Exit::Io, format!("signals: {error}")))?;
        // Found out before anything is made: how much room it takes, and whether the map can be read to its end.
        let measured = ops::measure(&disk, range.clone()).map_err(|error| Failure::of_image(&args.image, &error))?;
        data = measured.data.min(stored_by(&disk));
    }
    let target = destination.open(trailer.total, data, trailer.footer.is_some())?;

    let done = match target.content() {
        Some(content) => {
            // One is as fast as several where the image is in memory: the file system takes one write at a time.
            let threads = usize::from(common.threads.unwrap_or(1));
            to_file(&disk, range, (target.file(), content), &trailer, &work, threads)
        }
        None => to_stream(&disk, range, target.file(), &trailer, &work),
    };
    work.finish();
    let Err(error) = done else {
        target.complete(args.sync)?;
        return Ok(Exit::Done);
    };
    if let Some(left) = target.left_as() {
        term::tell("warning", term::WARNING, &escape(&left));
    }
    Err(match error {
        ExtractError::Cancelled => Failure::Interrupted { signal: work.signal().unwrap_or(0) },
        error if target.content().is_none() => Failure::of_bulk_output(&args.image, &destination.to_string(), error),
        ExtractError::Read(error) => Failure::of_image(&args.image, &error),
        error => Failure::new(Exit::Io, format!("{destination}: {error}")),
    })
}

/// How many bytes the files of a disk take on their media, or 2^64-1 where that is not known: what is zero because it is a
/// hole in one of them does not become data.
fn stored_by(disk: &Disk) -> u64 {
    let stored = |layer: &Layer| actual_size(layer.image().source().file()?);
    disk.layers().iter().try_fold(0_u64, |sum, layer| Some(sum.saturating_add(stored(layer)?))).unwrap_or(u64::MAX)
}

/// What comes behind the disk: nothing, or what makes a VHD of it.
struct Trailer {
    /// Zeros before the footer.
    padding: u64,
    footer: Option<[u8; 512]>,
    /// Length of everything.
    total: u64,
    /// What the user should know of it.
    notes: Vec<String>,
}

impl Trailer {
    fn new(disk: &Disk, range: &Range<u64>, format: DiskFormat) -> Self {
        /// What Hyper-V takes; Azure takes more.
        const MOST_OF_HYPER_V: u64 = 2040 << 30;

        let length = range.end.saturating_sub(range.start);
        if format == DiskFormat::Raw {
            return Self { padding: 0, footer: None, total: length, notes: Vec::new() };
        }
        let size = vhd::padded_size(length);
        let padding = size.saturating_sub(length);
        let image = disk.image();
        let unique_id: Uuid = image.virtual_disk_id().unwrap_or(image.header().data_write_guid);
        let mut notes = Vec::new();
        if image.logical_sector_size() != 512 {
            let text = "the disk has sectors of 4096 bytes, a VHD has sectors of 512: partitions may not be found";
            notes.push(text.to_owned());
        }
        if padding > 0 {
            notes.push(format!("{padding} zero bytes are added, since Azure takes whole MiB: {}", human(size)));
        }
        if size > MOST_OF_HYPER_V {
            notes.push("Hyper-V takes no VHD of more than 2040 GiB".to_owned());
        }
        let total = size.saturating_add(vhd::FOOTER_LENGTH);
        Self { padding, footer: Some(vhd::fixed_footer(size, unique_id)), total, notes }
    }

    /// Writes it, behind all that has been written before.
    fn write(&self, writer: &mut dyn Write) -> io::Result<()> {
        Segment::Zero(self.padding).slices().try_for_each(|zeros| writer.write_all(zeros))?;
        self.footer.iter().try_for_each(|footer| writer.write_all(footer))
    }
}

fn to_file(
    disk: &Disk,
    range: Range<u64>,
    (mut file, content): (&File, TargetContent),
    trailer: &Trailer,
    work: &Work,
    threads: usize,
) -> Result<(), ExtractError> {
    let length = range.end.saturating_sub(range.start);
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| ExtractError::Write(io::Error::other(error)))?;
    pool.install(|| ops::extract_to_file(disk, range, file, content, work))?;
    let end = file.seek(SeekFrom::Start(length));
    end.and_then(|_| trailer.write(&mut file)).map_err(ExtractError::Write)
}

fn to_stream(
    disk: &Disk,
    range: Range<u64>,
    mut file: &File,
    trailer: &Trailer,
    work: &Work,
) -> Result<(), ExtractError> {
    ops::extract_to_writer(disk, range, &mut file, work)?;
    trailer.write(&mut file).map_err(ExtractError::Write)
}
