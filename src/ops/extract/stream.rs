//! Writing to what takes bytes in order: a pipe, a socket, a terminal, or anything that is a [`Write`].

use std::fs::File;
use std::io::Write;

use crate::disk::Segment;
use crate::scan::{Access, Bulk, Consumer, Done, Input};

use super::super::hash::{Hasher, consumers};
use super::{ExtractOptions, Extracted, ScanError, data_of};

/// Writes a content to `writer`, zeros included, in order: while one thread writes, others read what comes next. Flushes
/// `writer` at the end.
///
/// # Errors
/// See [`ScanError`]; [`ScanError::Write`] also if `writer` can't be flushed.
pub fn extract_to_writer(
    content: Input<'_>,
    writer: &mut (dyn Write + Send),
    options: &ExtractOptions<'_>,
) -> Result<Extracted, ScanError> {
    let mut extracted = Extracted::default();
    let mut hasher = Hasher::new(&options.hash, content.len());
    let Hasher { streams, plan, part, .. } = &mut hasher;
    let plan = *plan;
    let write: Consumer<'_, ScanError> = Box::new(|unit| {
        let mut bytes = unit.segments().flat_map(Segment::slices);
        bytes.try_for_each(|bytes| writer.write_all(bytes)).map_err(ScanError::Write)
    });
    let bulk = Bulk { contents: [content], access: Access::Read, visit_zeros: true, options: options.scan };
    bulk.in_order(
        |unit, _| Ok((data_of(unit), plan.of_unit(unit.start, unit.segments()))),
        std::iter::once(write).chain(consumers(streams)).collect(),
        |Done { length, value, .. }| {
            if let Some((data, unit)) = value {
                extracted.count(data, length);
                part.append(unit);
            }
            Ok::<_, ScanError>(options.scan.advance(length)?)
        },
    )?;
    // What is still in a buffer of the writer has not arrived: dropping one swallows its errors.
    writer.flush().map_err(ScanError::Write)?;
    extracted.digests = hasher.finish();
    Ok(extracted)
}

/// Writes a content to an open file, zeros included, in order and from the file's position on. Where the system can, and no
/// digests are asked for, the bytes go into a pipe or a socket without being copied. What goes to the null device of Linux is
/// read, and not written: of zeros, there may be more than anyone waits for.
///
/// # Errors
/// See [`ScanError`].
pub fn extract_to_stream(
    content: Input<'_>,
    file: &File,
    options: &ExtractOptions<'_>,
) -> Result<Extracted, ScanError> {
    #[cfg(target_os = "linux")]
    if options.hash.is_empty() && is_null(file) {
        return read_all(content, options);
    }
    #[cfg(target_os = "linux")]
    if let Some(pipe) = pipe::Pipe::new(content, file, options) {
        return pipe.extract(content);
    }
    extract_to_writer(content, &mut &*file, options)
}

/// Whether nothing that is written there is kept: device 1:3.
#[cfg(target_os = "linux")]
fn is_null(file: &File) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use rustix::fs::{major, minor};

    file.metadata().is_ok_and(|metadata| {
        let device = metadata.rdev();
        metadata.file_type().is_char_device() && (major(device), minor(device)) == (1, 3)
    })
}

/// Reads a content as it is read to be written, and leaves out only what needs no reading.
#[cfg(target_os = "linux")]
fn read_all(content: Input<'_>, options: &ExtractOptions<'_>) -> Result<Extracted, ScanError> {
    let mut extracted = Extracted::default();
    Bulk { contents: [content], access: Access::Read, visit_zeros: false, options: options.scan }.each(
        |unit, _| Ok(data_of(unit)),
        |Done { length, value, .. }| {
            if value.is_none() {
                options.scan.advance(length)?;
            }
            extracted.count(value.unwrap_or(0), length);
            Ok::<_, ScanError>(())
        },
    )?;
    Ok(extracted)
}

/// Giving pages to a pipe: those of the image's file themselves, and for zeros those of a file that is one hole.
#[cfg(target_os = "linux")]
mod pipe {
    use std::fs::File;
    use std::io::{self, Write};
    use std::os::unix::fs::FileTypeExt;

    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::io::Errno;
    use rustix::pipe::{SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, splice};

    use crate::error::{Error, ErrorKind, Structure};
    use crate::num::{to_u64, to_usize_saturating};
    use crate::scan::{Input, Origin, PageCachePolicy, ScanOptions};
    use crate::source::Source;
    use crate::zero::zero_pages;

    use super::super::{ExtractOptions, Extracted, ScanError};

    /// How much a pipe may hold: as much as the system allows everyone, in bytes. By default it holds 64 KiB, and reader and
    /// writer wait for each other most of the time.
    const ROOM: usize = 1 << 20;

    /// Shorter runs are written like any bytes: to hand over pages costs more than that.
    const MIN_SPLICED: u64 = 32 << 10;

    /// Length of the file of zeros, in bytes.
    const HOLE: u64 = 1 << 30;

    pub(super) struct Pipe<'f> {
        file: &'f File,
        scan: ScanOptions<'f>,
        /// None where the system has no such file: zeros are written then.
        zeros: Option<File>,
        /// How much the pipe holds, in bytes.
        room: u64,
    }

    impl<'f> Pipe<'f> {
        /// None if it is no pipe, or if the bytes have to be looked at, or forgotten by the system behind that.
        pub(super) fn new(content: Input<'_>, file: &'f File, options: &'f ExtractOptions<'f>) -> Option<Self> {
            if !options.hash.is_empty() || options.scan.cache == PageCachePolicy::Drop || content.is_salvaged() {
                return None;
            }
            if !file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo()) {
                return None;
            }
            // More room is faster, but it works without.
            let _ = fcntl_setpipe_size(file, ROOM);
            let room = to_u64(fcntl_getpipe_size(file).ok()?);
            let zeros = memfd_create("zeros", MemfdFlags::CLOEXEC).map(File::from);
            let zeros = zeros.ok().filter(|zeros| zeros.set_len(HOLE).is_ok());
            Some(Self { file, scan: options.scan, zeros, room })
        }

        pub(super) fn extract(&self, content: Input<'_>) -> Result<Extracted, ScanError> {
            let mut extracted = Extracted::default();
            // Pages of the file that are in the pipe still change with it: where it becomes shorter, they turn to zeros. So as
            // much as the pipe holds is copied at the end: once it is in, every page before it has been taken out, and
            // whether the file was whole until then can be asked.
            let mut to_give = content.len().saturating_sub(self.room);
            for run in content.pieces() {
                let run = run?;
                let data = match run.origin {
                    Origin::Zero => {
                        self.zeros(run.length)?;
                        0
                    }
                    Origin::Memory(bytes) => {
                        self.write(bytes)?;
                        run.length
                    }
                    Origin::File(source, offset) => {
                        let source = source.source();
                        self.data(source, offset, run.length, to_give)
                            .map_err(|error| in_layer(error, run.layer, source))?;
                        run.length
                    }
                };
                extracted.count(data, run.length);
                to_give = to_give.saturating_sub(run.length);
            }
            content.check_looked_at()?;
            Ok(extracted)
        }

        /// Gives or writes `length` bytes of a file; pages of the file itself only for the first `to_give` of them.
        fn data(&self, source: &Source, mut offset: u64, mut length: u64, mut to_give: u64) -> Result<(), ScanError> {
            while length > 0 {
                // Holes need not be read.
                let hole = source.hole_end(offset, offset.saturating_add(length)).saturating_sub(offset);
                let step = match hole {
                    0 => length.min(1 << 20).min(if to_give >= MIN_SPLICED { to_give } else { u64::MAX }),
                    hole => hole,
                };
                if hole > 0 {
                    self.zeros(hole)?;
                } else {
                    match source.own_file().filter(|_| step >= MIN_SPLICED && to_give >= step) {
                        Some(file) => self.give(file, offset, step).map_err(|error| unreadable(error, source, step))?,
                        None => self.copy(source, offset, step)?,
                    }
                }
                (offset, length) = (offset.saturating_add(step), length.saturating_sub(step));
                to_give = to_give.saturating_sub(step);
            }
            Ok(())
        }

        /// Writes `length` bytes of a file, at most 1 MiB.
        fn copy(&self, source: &Source, offset: u64, length: u64) -> Result<(), ScanError> {
            if let Some(bytes) = source.borrow(offset, length) {
                self.write(bytes).map_err(|error| lost_if_faulted(error, offset))?;
                source.check(Structure::File, offset, length)?;
                return Ok(source.check_length(offset.saturating_add(length))?);
            }
            let mut bytes = vec![0; to_usize_saturating(length)];
            source.read_exact_at(offset, &mut bytes)?;
            self.write(&bytes)
        }

        fn zeros(&self, mut length: u64) -> Result<(), ScanError> {
            while length > 0 {
                let step = match self.zeros.as_ref().filter(|_| length >= MIN_SPLICED) {
                    Some(zeros) => {
                        let step = length.min(HOLE);
                        self.give(zeros, 0, step)?;
                        step
                    }
                    None => {
                        let zeros = zero_pages(length);
                        self.write(zeros)?;
                        to_u64(zeros.len())
                    }
                };
                length = length.saturating_sub(step);
            }
            Ok(())
        }

        /// Gives pages of a file to the pipe.
        fn give(&self, from: &File, mut offset: u64, mut length: u64) -> Result<(), ScanError> {
            while length > 0 {
                let most = to_usize_saturating(length.min(to_u64(ROOM)));
                let given = match splice(from, Some(&mut offset), self.file, None, most, SpliceFlags::empty()) {
                    Ok(0) => return Err(Error::at(Structure::File, offset, ErrorKind::Lost).into()),
                    Ok(given) => to_u64(given),
                    Err(Errno::INTR) => 0,
                    Err(broken @ (Errno::PIPE | Errno::AGAIN)) => return Err(ScanError::Write(broken.into())),
                    Err(error) => {
                        let kind = ErrorKind::Io(std::sync::Arc::new(error.into()));
                        return Err(Error::at(Structure::File, offset, kind).into());
                    }
                };
                length = length.saturating_sub(given);
                self.scan.advance(given)?;
            }
            Ok(())
        }

        fn write(&self, bytes: &[u8]) -> Result<(), ScanError> {
            let mut file = self.file;
            file.write_all(bytes).map_err(ScanError::Write)?;
            Ok(self.scan.advance(to_u64(bytes.len()))?)
        }
    }

    /// A page of the image that can't be had when the system takes it is no error of the pipe.
    fn lost_if_faulted(error: ScanError, offset: u64) -> ScanError {
        match error {
            ScanError::Write(error) if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) => {
                ScanError::Read(Error::at(Structure::File, offset, ErrorKind::Lost))
            }
            other => other,
        }
    }

    /// What it means that pages of a file can't be given to the pipe.
    fn unreadable(error: ScanError, source: &Source, length: u64) -> ScanError {
        match error {
            ScanError::Read(error) => match (error.kind(), error.offset()) {
                (ErrorKind::Io(cause), Some(offset)) => {
                    let cause = cause.raw_os_error().map_or(cause.kind().into(), io::Error::from_raw_os_error);
                    source.unreadable(offset, length, cause).into()
                }
                _ => error.into(),
            },
            other => other,
        }
    }

    fn in_layer(error: ScanError, layer: usize, source: &Source) -> ScanError {
        match error {
            ScanError::Read(error) => ScanError::Read(error.in_layer(layer, source.path())),
            other => other,
        }
    }
}
