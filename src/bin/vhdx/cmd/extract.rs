//! `vhdx extract`.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;

use rayon::ThreadPoolBuilder;
use uuid::Uuid;
use vhdx_mmap::ops::{self, ExtractError, vhd};
use vhdx_mmap::{Disk, Segment};

use crate::args::{Common, DiskFormat, ExtractArgs};
use crate::exit::{Exit, Failure};
use crate::open;
use crate::progress::Work;
use crate::size::human;
use crate::target::Target;
use crate::term;

pub(crate) fn run(args: &ExtractArgs, common: &Common) -> Result<Exit, Failure> {
    let disk = open::disk(&args.image, common)?;
    let range = match args.range {
        Some(range) => range.within(disk.size()).map_err(Failure::usage)?,
        None => 0..disk.size(),
    };
    let trailer = Trailer::new(&disk, &range, args.format);
    if let Some(note) = trailer.note.as_ref().filter(|_| !common.quiet) {
        term::tell("note", term::HINT, note);
    }
    // Found out before anything is made: how much room it takes, and whether the map can be read to its end.
    let measured = ops::measure(&disk, range.clone()).map_err(|error| Failure::of_image(&args.image, &error))?;
    let target = Target::open(&args.out, &disk, args.force, trailer.total, measured.data)?;

    let work = Work::new(range.end.saturating_sub(range.start), common.quiet);
    let done = match target.content() {
        Some(content) => {
            work.listen().map_err(|error| Failure::new(Exit::Io, format!("signals: {error}")))?;
            // One is as fast as several where the image is in memory: the file system takes one write at a time.
            let threads = usize::from(common.threads.unwrap_or(1));
            to_file(&disk, range, (target.file(), content), &trailer, &work, threads)
        }
        None => to_stream(&disk, range, target.file(), &trailer, &work),
    };
    work.finish();
    match done {
        Ok(()) => {}
        Err(ExtractError::Cancelled) => return Err(Failure::Interrupted { signal: work.signal().unwrap_or(0) }),
        Err(error) if target.content().is_none() => return Err(Failure::of_bulk_output(&args.image, error)),
        Err(ExtractError::Read(error)) => return Err(Failure::of_image(&args.image, &error)),
        Err(error) => return Err(Failure::new(Exit::Io, format!("{}: {error}", args.out.display()))),
    }
    target.complete()?;
    Ok(Exit::Done)
}

/// What comes behind the disk: nothing, or what makes a VHD of it.
struct Trailer {
    /// Zeros before the footer.
    padding: u64,
    footer: Option<[u8; 512]>,
    /// Length of everything.
    total: u64,
    /// What the user should know of it.
    note: Option<String>,
}

impl Trailer {
    fn new(disk: &Disk, range: &Range<u64>, format: DiskFormat) -> Self {
        let length = range.end.saturating_sub(range.start);
        if format == DiskFormat::Raw {
            return Self { padding: 0, footer: None, total: length, note: None };
        }
        let size = vhd::padded_size(length);
        let padding = size.saturating_sub(length);
        let image = disk.image();
        let unique_id: Uuid = image.virtual_disk_id().unwrap_or(image.header().data_write_guid);
        let note = if image.logical_sector_size() != 512 {
            Some("the disk has sectors of 4096 bytes, a VHD has sectors of 512: partitions may not be found".to_owned())
        } else if padding > 0 {
            Some(format!(
                "{padding} zero bytes are added, so that the VHD is of {}: Azure takes whole MiB",
                human(size)
            ))
        } else {
            None
        };
        let total = size.saturating_add(vhd::FOOTER_LENGTH);
        Self { padding, footer: Some(vhd::fixed_footer(size, unique_id)), total, note }
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
    (mut file, content): (&File, ops::Target),
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
