//! UDF (ECMA-167): its descriptors, and the names in them.

use crate::error::Result;

use super::super::area::{Area, Fields, has, utf16_be};
use super::{Volume, VolumeDetails};

/// Sizes of blocks: that of a sector is the most usual.
const BLOCK_SIZES: [u64; 7] = [512, 2048, 4096, 1024, 8192, 16384, 32768];

/// Finds UDF by the descriptors at 32 KiB, which take 2 KiB or a larger block each.
pub(super) fn find(area: &Area<'_>) -> Result<Option<Volume>> {
    if !has(area, 0x8001, b"BEA01")? {
        return Ok(None);
    }
    for block_size in BLOCK_SIZES {
        if has(area, 0x8001_u64.saturating_add(block_size.max(2048)), b"NSR0")? {
            return Ok(Some(Volume::Udf));
        }
    }
    Ok(None)
}

/// Largest number of descriptors that are looked at: valid volumes have about 16.
const MOST_DESCRIPTORS: u64 = 64;

/// Reads the names in the descriptors of the volume: that of the logical volume, or else of the primary one, and the
/// beginning of that of the set of volumes, which is unique.
pub(super) fn describe(area: &Area<'_>, details: &mut VolumeDetails) -> Result<()> {
    const PRIMARY: u16 = 1;
    const ANCHOR: u16 = 2;
    const LOGICAL_VOLUME: u16 = 6;
    const END: u16 = 8;
    /// Number of the block with the anchor, which says where the descriptors are.
    const ANCHOR_BLOCK: u32 = 256;

    for block_size in BLOCK_SIZES {
        let anchor = Fields::read(area, block_size.saturating_mul(ANCHOR_BLOCK.into()), 512)?;
        if tag(&anchor) != Some((ANCHOR, ANCHOR_BLOCK)) {
            continue;
        }
        let (length, first) = (u64::from(anchor.le32(16)), u64::from(anchor.le32(20)));
        let blocks = first..first.saturating_add(length.checked_div(block_size).unwrap_or(0).min(MOST_DESCRIPTORS));
        let mut primary_name = None;
        for block in blocks {
            let descriptor = Fields::read(area, block.saturating_mul(block_size), 512)?;
            match tag(&descriptor) {
                Some((PRIMARY, _)) => {
                    primary_name = dstring(descriptor.bytes(24, 32));
                    details.uuid = dstring(descriptor.bytes(72, 128)).and_then(|name| id_of_set(&name));
                }
                Some((LOGICAL_VOLUME, _)) => details.label = dstring(descriptor.bytes(84, 128)),
                Some((END, _)) | None => break,
                Some(_) => {}
            }
        }
        details.label = details.label.take().or(primary_name);
        break;
    }
    Ok(())
}

/// Returns the kind of a descriptor, and the number of its block, if the checksum of its tag is right.
fn tag(descriptor: &Fields) -> Option<(u16, u32)> {
    let bytes: [u8; 16] = descriptor.array(0);
    let sum = bytes.iter().enumerate().filter(|(at, _)| *at != 4).fold(0_u8, |sum, (_, byte)| sum.wrapping_add(*byte));
    let kind = descriptor.le16(0);
    (kind != 0 && sum == descriptor.byte(4)).then(|| (kind, descriptor.le32(12)))
}

/// Decodes a text in a field whose last byte is its length, and whose first byte is its number of bits per character.
fn dstring(field: &[u8]) -> Option<String> {
    let (length, field) = field.split_last()?;
    let (bits, text) = field.get(..usize::from(*length).min(field.len()))?.split_first()?;
    match bits {
        8 | 254 => Some(text.iter().map(|byte| char::from(*byte)).collect()).filter(|text: &String| !text.is_empty()),
        16 | 255 => utf16_be(text),
        _ => None,
    }
}

/// Returns the identity in the name of a set of volumes, in the form of `blkid`: its first 16 characters if they are
/// hexadecimal, or else bytes of it as numbers.
fn id_of_set(name: &str) -> Option<String> {
    let bytes: Vec<u8> = name.bytes().take(16).collect();
    let hexadecimal = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (kept, rest) = match hexadecimal {
        16 => bytes.split_at_checked(16)?,
        8.. => (bytes.get(..8)?, bytes.get(8..12)?),
        _ => bytes.get(..8)?.split_at_checked(0)?,
    };
    let mut id = String::from_utf8_lossy(kept).to_ascii_lowercase();
    rest.iter().for_each(|byte| id.push_str(&format!("{byte:02x}")));
    Some(id)
}
