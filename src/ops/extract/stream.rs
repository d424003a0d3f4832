//! Extraction to streams: a pipe, a socket, a terminal, or any [`Write`].

use std::fs::File;
use std::io::Write;

use crate::disk::Segment;
use crate::scan::{Access, Bulk, Consumer, Done, Input};

use super::super::hash::{Hasher, consumers};
use super::{ExtractOptions, Extracted, ScanError, data_of};

/// Writes an input to `writer` in order, including zeros. While one thread writes, others read the next bytes. Flushes
/// `writer` at the end.
///
/// # Errors
/// See [`ScanError`]; [`ScanError::Write`] also if `writer` cannot be flushed.
pub fn extract_to_writer(
    input: Input<'_>,
    writer: &mut (dyn Write + Send),
    options: &ExtractOptions<'_>,
) -> Result<Extracted, ScanError> {
    let mut extracted = Extracted::default();
    let mut hasher = Hasher::new(&options.hash, input.len());
    let Hasher { streams, plan, part, .. } = &mut hasher;
    let plan = *plan;
    let write: Consumer<'_, ScanError> = Box::new(|unit| {
        let mut bytes = unit.segments().flat_map(Segment::slices);
        bytes.try_for_each(|bytes| writer.write_all(bytes)).map_err(ScanError::Write)
    });
    let bulk = Bulk { inputs: [input], access: Access::Read, visit_zeros: true, options: options.scan };
    bulk.in_order(
        |unit, _| Ok((data_of(unit), plan.of_unit(unit.start, unit.segments()))),
        std::iter::once(write).chain(consumers(streams)).collect(),
        |Done { length, value, .. }| {
            if let Some((data, unit)) = value {
                extracted.count(data, length);
                part.append(unit);
            }
            options.scan.advance(length)
        },
    )?;
    // Bytes in a buffer of the writer have not been written: dropping the writer ignores errors.
    writer.flush().map_err(ScanError::Write)?;
    extracted.digests = hasher.finish();
    Ok(extracted)
}

/// Writes an input to an open file in order, including zeros, from the file's position on. If the system supports it,
/// and no digests are requested, the bytes go into a pipe or a socket without being copied. For the null device of
/// Linux, the input is read, but not written: writing all zeros may take very long.
///
/// # Errors
/// See [`ScanError`].
pub fn extract_to_stream(input: Input<'_>, file: &File, options: &ExtractOptions<'_>) -> Result<Extracted, ScanError> {
    #[cfg(target_os = "linux")]
    if options.hash.is_empty() && is_null(file) {
        return read_all(input, options);
    }
    #[cfg(target_os = "linux")]
    if let Some(pipe) = pipe::Pipe::new(input, file, options) {
        return pipe.extract(input);
    }
    extract_to_writer(input, &mut &*file, options)
}

/// Returns whether writes to the file are discarded: device 1:3.
#[cfg(target_os = "linux")]
fn is_null(file: &File) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use rustix::fs::{major, minor};

    file.metadata().is_ok_and(|metadata| {
        let device = metadata.rdev();
        metadata.file_type().is_char_device() && (major(device), minor(device)) == (1, 3)
    })
}

/// Reads an input as for writing, except for zeros that need no reading.
#[cfg(target_os = "linux")]
fn read_all(input: Input<'_>, options: &ExtractOptions<'_>) -> Result<Extracted, ScanError> {
    let mut extracted = Extracted::default();
    Bulk { inputs: [input], access: Access::Read, visit_zeros: false, options: options.scan }.each(
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

/// Moving pages to a pipe: those of the image's file itself, and for zeros those of a file that is one hole.
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

    /// Size of the pipe, in bytes: the limit for users without privileges. By default it is 64 KiB, and reader and
    /// writer wait for each other most of the time.
    const ROOM: usize = 1 << 20;

    /// Shorter runs, in bytes, are written like any bytes: moving pages costs more than that.
    const MIN_SPLICED: u64 = 32 << 10;

    /// Length of the file of zeros, in bytes.
    const HOLE: u64 = 1 << 30;

    pub(super) struct Pipe<'f> {
        file: &'f File,
        scan: ScanOptions<'f>,
        /// `None` if the system has no such file: zeros are written then.
        zeros: Option<File>,
        /// Size of the pipe, in bytes.
        room: u64,
    }

    impl<'f> Pipe<'f> {
        /// Returns `None` if it is not a pipe, or if the bytes have to be read, or dropped from the page cache
        /// afterwards.
        pub(super) fn new(input: Input<'_>, file: &'f File, options: &'f ExtractOptions<'f>) -> Option<Self> {
            if !options.hash.is_empty() || options.scan.cache == PageCachePolicy::Drop || input.is_salvaged() {
                return None;
            }
            if !file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo()) {
                return None;
            }
            // A larger pipe is faster, but not necessary.
            let _ = fcntl_setpipe_size(file, ROOM);
            let room = to_u64(fcntl_getpipe_size(file).ok()?);
            let zeros = memfd_create("zeros", MemfdFlags::CLOEXEC).map(File::from);
            let zeros = zeros.ok().filter(|zeros| zeros.set_len(HOLE).is_ok());
            Some(Self { file, scan: options.scan, zeros, room })
        }

        pub(super) fn extract(&self, input: Input<'_>) -> Result<Extracted, ScanError> {
            let mut extracted = Extracted::default();
            // Pages of the file in the pipe still change with the file: if it becomes shorter, they turn to zeros. So
            // the last bytes, as many as the pipe holds, are copied: once they are in the pipe, every page before them
            // has been taken out, and a check whether the file was complete until then is certain.
            let mut to_give = input.len().saturating_sub(self.room);
            for run in input.pieces() {
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
            input.check_looked_at()?;
            Ok(extracted)
        }

        /// Moves or writes `length` bytes of a file; pages of the file itself only for the first `to_give` of them.
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
                return Ok(source.check_mapped(offset.saturating_add(length))?);
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

        /// Moves pages of a file to the pipe.
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
            self.scan.advance(to_u64(bytes.len()))
        }
    }

    /// Converts the error for an unreadable page of the image, which is not an error of the pipe.
    fn lost_if_faulted(error: ScanError, offset: u64) -> ScanError {
        match error {
            ScanError::Write(error) if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) => {
                ScanError::Read(Error::at(Structure::File, offset, ErrorKind::Lost))
            }
            other => other,
        }
    }

    /// Converts the error for pages of a file that cannot be moved to the pipe.
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
