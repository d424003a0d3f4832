//! Security descriptors: who may do what with a file.
//!
//! Most are in the stream `$SDS` of `$Secure`, once for all files that have the same one; the standard information of a
//! file names it by a number. Others are an attribute of the file.

use std::collections::BTreeMap;

use super::Ntfs;
use super::file::File;
use super::raw::{Fields, damaged, to_u64, to_usize};
use super::record::{DATA, STANDARD_INFORMATION};
use super::runs::{Clusters, clusters_of};
use super::view::View;
use crate::error::Result;
use crate::volume::{Attribute, Node};

/// Number of the record of `$Secure`.
const SECURE: u64 = 9;

/// The attribute that holds the descriptor of one file.
pub(super) const DESCRIPTOR: u32 = 0x50;

/// The name under which ntfs-3g shows descriptors, too.
const NAME: &[u8] = b"system.ntfs_acl";

/// Header of a descriptor in the stream: hash, number, offset, length with the header.
const HEADER: usize = 20;

/// The stream has blocks of this length, in bytes, each of which comes twice.
const BLOCK: usize = 256 << 10;

/// Longest descriptor, in bytes.
const LONGEST: u64 = 64 << 10;

/// Most descriptors, and the longest stream, that are looked at.
const MOST: usize = 1 << 18;
const LONGEST_STREAM: u64 = 128 << 20;

/// Where the number of the descriptor is in the standard information, which older versions end before.
const NUMBER_OF_FILE: usize = 0x34;

/// The descriptors of a volume, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    stream: Clusters,
    /// Offset in the stream, and length.
    places: BTreeMap<u32, (u64, u64)>,
}

impl Descriptors {
    /// Finds all descriptors.
    pub(super) fn of(view: &View) -> Result<Self> {
        let file = view.file(Node(SECURE), |kind, _| kind == DATA)?;
        let name: Vec<u8> = "$SDS".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let pieces = file.pieces(DATA, &name)?;
        let stream = clusters_of(&pieces.iter().collect::<Vec<_>>(), view.cluster())?;
        stream.require_plain()?;
        let end = stream.size.min(stream.initialised);
        let mut places = BTreeMap::new();
        let mut start = 0_u64;
        while start < end && start < LONGEST_STREAM {
            let mut block = vec![0; to_usize(end.saturating_sub(start)).min(BLOCK)];
            view.read_runs(&stream.runs, start, &mut block)?;
            let mut at = 0;
            while let Some(header) = block.get(at..).filter(|rest| rest.len() > HEADER) {
                let (number, offset, length) = (header.u32(4)?, header.u64(8)?, to_usize(header.u32(16)?));
                let here = start.saturating_add(to_u64(at));
                if length <= HEADER || length > header.len() || offset != here {
                    break;
                }
                let (from, length_of_value) = (here.saturating_add(to_u64(HEADER)), length.saturating_sub(HEADER));
                places.insert(number, (from, to_u64(length_of_value)));
                at = at.saturating_add(length.next_multiple_of(16));
            }
            if places.len() > MOST {
                return Err(damaged("$Secure has more descriptors than any volume"));
            }
            start = start.saturating_add(to_u64(BLOCK).saturating_mul(2));
        }
        Ok(Self { stream, places })
    }

    fn read(&self, view: &View, number: u32) -> Result<Option<Vec<u8>>> {
        let Some((at, length)) = self.places.get(&number).filter(|(_, length)| *length <= LONGEST) else {
            return Ok(None);
        };
        let mut value = vec![0; to_usize(*length)];
        view.read_runs(&self.stream.runs, *at, &mut value)?;
        Ok(Some(value))
    }
}

impl Ntfs {
    /// Returns the descriptor of a file as an extended attribute. None if there is none, or none that can be read: that
    /// is no reason to leave the file alone.
    pub(super) fn descriptor(&self, file: &File) -> Option<Attribute> {
        let find = || -> Result<Option<Vec<u8>>> {
            let pieces = file.pieces(DESCRIPTOR, &[])?;
            if !pieces.is_empty() {
                return Ok(Some(self.view.value(&pieces.iter().collect::<Vec<_>>(), LONGEST)?));
            }
            let information = file.all(STANDARD_INFORMATION)?;
            let Some(information) = information.first() else { return Ok(None) };
            match information.resident()?.u32(NUMBER_OF_FILE) {
                Ok(number) if number != 0 => self.descriptors().read(&self.view, number),
                _ => Ok(None),
            }
        };
        let value = find().ok().flatten()?;
        Some(Attribute { name: NAME.to_vec(), value })
    }
}
