//! Footer of a fixed VHD, the format that Azure requires for uploads.
//!
//! A fixed VHD is the raw disk, followed by one sector that describes it. So it can be written as a stream.

use uuid::Uuid;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// Length of the footer, in bytes.
pub const FOOTER_LEN: u64 = 512;

/// The footer of a VHD (Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format"). Big-endian.
#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Footer {
    cookie: [u8; 8],
    features: U32,
    file_format_version: U32,
    data_offset: U64,
    time_stamp: U32,
    creator_application: [u8; 4],
    creator_version: U32,
    creator_host_os: [u8; 4],
    original_size: U64,
    current_size: U64,
    cylinders: U16,
    heads: u8,
    sectors_per_track: u8,
    disk_type: U32,
    checksum: U32,
    unique_id: [u8; 16],
    saved_state: u8,
    reserved: [u8; 427],
}

const _: () = assert!(size_of::<Footer>() == 512);

/// Returns the size of a VHD of a disk of `size` bytes: rounded up to whole MiB, as Azure requires. Returns
/// [`u64::MAX`] if the result does not fit into a `u64`; an input of that length has no space for a footer.
#[must_use]
pub const fn padded_size(size: u64) -> u64 {
    match size.checked_next_multiple_of(1 << 20) {
        Some(padded) => padded,
        None => u64::MAX,
    }
}

/// Returns the footer of a fixed VHD of `size` bytes. It contains no time, so equal arguments give equal footers.
#[must_use]
pub fn fixed_footer(size: u64, unique_id: Uuid) -> [u8; 512] {
    let (cylinders, heads, sectors_per_track) = geometry(size);
    let mut footer = Footer {
        cookie: *b"conectix",
        // "Reserved", a bit that is always set.
        features: U32::new(2),
        file_format_version: U32::new(0x0001_0000),
        // A fixed disk has no further header.
        data_offset: U64::new(u64::MAX),
        time_stamp: U32::new(0),
        // By this name, readers decide whether the size or the geometry counts. For a disk from Hyper-V it is the size.
        creator_application: *b"win ",
        creator_version: U32::new(0x000a_0000),
        creator_host_os: *b"Wi2k",
        original_size: U64::new(size),
        current_size: U64::new(size),
        cylinders: U16::new(cylinders),
        heads,
        sectors_per_track,
        disk_type: U32::new(2),
        checksum: U32::new(0),
        unique_id: unique_id.into_bytes(),
        saved_state: 0,
        reserved: [0; 427],
    };
    let sum = footer.as_bytes().iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    footer.checksum = U32::new(!sum);
    zerocopy::transmute!(footer)
}

/// Returns cylinders, heads and sectors per track of a disk of `size` bytes, according to the specification's appendix
/// "CHS Calculation": the largest geometry is that of 127 GiB, which larger disks have, too.
fn geometry(size: u64) -> (u16, u8, u8) {
    let total = (size / FOOTER_LEN).min(65535 * 16 * 255);
    let (heads, sectors_per_track) = if total >= 65535 * 16 * 63 {
        (16, 255)
    } else {
        let tracks = total / 17;
        let heads = tracks.div_ceil(1024).max(4);
        if heads <= 16 && tracks < heads.saturating_mul(1024) {
            (heads, 17)
        } else if total / 31 < 16 * 1024 {
            (16, 31)
        } else {
            (16, 63)
        }
    };
    let cylinders = total.checked_div(u64::from(sectors_per_track)).unwrap_or(0).checked_div(heads).unwrap_or(0);
    (u16::try_from(cylinders).unwrap_or(u16::MAX), u8::try_from(heads).unwrap_or(16), sectors_per_track)
}

#[cfg(test)]
mod tests {
    use super::{geometry, padded_size};

    #[test]
    fn geometry_follows_specification() {
        // Computed by hand from the appendix.
        assert_eq!(geometry(0), (0, 4, 17));
        assert_eq!(geometry(33 << 20), (993, 4, 17));
        assert_eq!(geometry(34 << 20), (140, 16, 31));
        assert_eq!(geometry(1 << 30), (2080, 16, 63));
        assert_eq!(geometry(65535 * 16 * 63 * 512), (16191, 16, 255));
        assert_eq!(geometry(4 << 40), (65535, 16, 255));
    }

    #[test]
    fn sizes_are_rounded_up_to_whole_mebibytes() {
        assert_eq!([0, 1, 1 << 20, (1 << 20) + 512].map(padded_size), [0, 1 << 20, 1 << 20, 2 << 20]);
        // The last whole MiB that a u64 can count, and larger sizes: never less than the disk.
        let last = u64::MAX - (1 << 20) + 1;
        assert_eq!([last - 1, last, last + 1, u64::MAX].map(padded_size), [last, last, u64::MAX, u64::MAX]);
    }
}
