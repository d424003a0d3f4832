//! A device with other bytes in one place: a superblock that knows of no journal.

use crate::device::Device;

/// Replaces the bytes of `buffer`, read from `offset`, that lie in `patch`, which begins at `at`.
pub(crate) fn overlay(buffer: &mut [u8], offset: u64, patch: &[u8], at: u64) {
    let skipped = usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX);
    let from = usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
    let patch = patch.get(skipped..).unwrap_or_default();
    let buffer = buffer.get_mut(from..).unwrap_or_default();
    buffer.iter_mut().zip(patch).for_each(|(old, new)| *old = *new);
}

/// A device with other bytes in one place.
#[derive(Debug)]
pub(crate) struct Patched {
    pub(crate) device: Device,
    /// Where the other bytes begin.
    pub(crate) at: u64,
    pub(crate) bytes: Vec<u8>,
}

impl fs_core::BlockRead for Patched {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> fs_core::Result<()> {
        self.device.fill(offset, buffer).map_err(fs_core::Error::Io)?;
        overlay(buffer, offset, &self.bytes, self.at);
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.device.range().size()
    }
}

#[cfg(test)]
mod tests {
    use super::overlay;

    #[test]
    fn bytes_are_replaced_where_they_lie() {
        for (offset, length, expected) in [
            (0, 4, &[0, 0, 0, 0][..]),
            (0, 6, &[0, 0, 0, 0, 0, 1]),
            (4, 6, &[0, 1, 2, 3, 0, 0]),
            (6, 1, &[2]),
            (7, 3, &[3, 0, 0]),
            (8, 2, &[0, 0]),
        ] {
            let mut buffer = vec![0; length];
            overlay(&mut buffer, offset, &[1, 2, 3], 5);
            assert_eq!(buffer, expected, "{offset}");
        }
    }
}
