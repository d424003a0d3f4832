//! Digests that can only be computed from the beginning of the input to its end.

use sha2::Digest as _;

use crate::checksum::Crc32;
use crate::disk::Segment;
use crate::num::to_usize_saturating;

use super::{Algorithm, Digest};

/// A digest in the making.
pub(crate) enum Stream {
    Sha256(sha2::Sha256),
    Sha1(sha1::Sha1),
    Md5(md5::Md5),
}

impl Stream {
    /// Returns `None` for algorithms that can be computed in parts.
    pub(super) fn new(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::Crc32 | Algorithm::Blake3 => None,
            Algorithm::Sha256 => Some(Self::Sha256(sha2::Sha256::new())),
            Algorithm::Sha1 => Some(Self::Sha1(sha1::Sha1::new())),
            Algorithm::Md5 => Some(Self::Md5(md5::Md5::new())),
        }
    }

    pub(super) fn update(&mut self, segment: Segment<'_>) {
        segment.slices().for_each(|bytes| match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Md5(hasher) => hasher.update(bytes),
        });
    }

    pub(crate) fn finish(self) -> Option<Digest> {
        match self {
            Self::Sha256(hasher) => Digest::new(Algorithm::Sha256, &hasher.finalize()),
            Self::Sha1(hasher) => Digest::new(Algorithm::Sha1, &hasher.finalize()),
            Self::Md5(hasher) => Digest::new(Algorithm::Md5, &hasher.finalize()),
        }
    }
}

/// A digest by any algorithm, of bytes that are few enough to be processed one by one.
pub(crate) enum Running {
    Crc32(Crc32),
    Blake3(Box<blake3::Hasher>),
    Stream(Stream),
}

impl Running {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match Stream::new(algorithm) {
            Some(stream) => Self::Stream(stream),
            None if algorithm == Algorithm::Crc32 => Self::Crc32(Crc32::default()),
            None => Self::Blake3(Box::default()),
        }
    }

    /// Continues the digest over `bytes`.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        #[cfg(test)]
        work::count(bytes);
        match self {
            Self::Crc32(sum) => sum.update(bytes),
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
            Self::Stream(stream) => stream.update(Segment::Data(bytes)),
        }
    }

    /// Continues the digest over `bytes`, repeated `times` times. Only a CRC-32 needs no work for each repetition;
    /// `keep_going` may cancel the others, and is called every few thousand bytes.
    pub(crate) fn update_repeatedly<E>(
        &mut self,
        bytes: &[u8],
        times: u64,
        mut keep_going: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        const AT_ONCE: u64 = 1024;

        if let Self::Crc32(sum) = self {
            let mut part = Crc32::default();
            part.update(bytes);
            sum.append_repeated(&part, times);
            return Ok(());
        }
        let many = if times >= AT_ONCE { bytes.repeat(to_usize_saturating(AT_ONCE)) } else { Vec::new() };
        let mut left = times;
        while left > 0 {
            let (piece, done) = if left >= AT_ONCE { (many.as_slice(), AT_ONCE) } else { (bytes, 1) };
            if left >= AT_ONCE {
                keep_going()?;
            }
            self.update(piece);
            left = left.saturating_sub(done);
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Option<Digest> {
        match self {
            Self::Crc32(sum) => Digest::of_crc32(&sum),
            Self::Blake3(hasher) => Digest::new(Algorithm::Blake3, hasher.finalize().as_bytes()),
            Self::Stream(stream) => stream.finish(),
        }
    }
}

/// Counters of the work of [`Running`], for tests.
#[cfg(test)]
pub(crate) mod work {
    use std::cell::Cell;

    use crate::num::to_u64;

    thread_local! {
        static BYTES: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) fn count(bytes: &[u8]) {
        BYTES.set(BYTES.get().saturating_add(to_u64(bytes.len())));
    }

    /// Returns the number of bytes that this thread has processed one by one since the last call.
    pub(crate) fn take() -> u64 {
        BYTES.take()
    }
}
