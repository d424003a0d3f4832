//! Files: all attributes of one, in as many records as it takes.

use std::collections::HashMap;

use super::raw::{Fields, damaged};
use super::record::{Attribute, DATA, DIRECTORY, IN_USE, ListEntry, NUMBER_BITS, Record, split};
use super::view::View;
use crate::error::Result;
use crate::volume::Node;

/// Attributes of a file, as far as they were asked for.
#[derive(Debug)]
pub(super) struct File {
    /// The first one is the one that names of the file refer to.
    records: Vec<Record>,
    /// The kinds of the attributes, their records, and the offsets in them.
    places: Vec<(u32, usize, usize)>,
}

impl View {
    /// Reads the attributes of a file. `is_wanted` is asked for each whether it is needed, by its kind and the first
    /// cluster of its value that it is about; only then is the record read that holds it.
    pub(super) fn file(&self, node: Node, is_wanted: impl Fn(u32, u64) -> bool) -> Result<File> {
        let (number, sequence) = split(node.0);
        let base = self.record(number)?;
        if base.flags & IN_USE == 0 || (sequence != 0 && sequence != base.sequence) {
            return Err(damaged(format!("a name leads to file record {number}, whose file was deleted")));
        }
        if base.base != 0 {
            return Err(damaged(format!("a name leads to file record {number}, which is a part of another file")));
        }
        let attributes = base.attributes()?;
        let list = self.list_of(&attributes)?;
        let mut places = Vec::new();
        let mut at = usize::from(base.bytes.u16(0x14)?);
        for attribute in &attributes {
            if list.is_empty() && is_wanted(attribute.kind, attribute.first()) {
                places.push((attribute.kind, 0, at));
            }
            at = at.saturating_add(attribute.length);
        }
        let sequence = base.sequence;
        drop(attributes);
        let mut file = File { records: vec![base], places };
        if list.is_empty() {
            return Ok(file);
        }
        let mut indices = HashMap::from([(number, 0)]);
        for entry in &list {
            if !is_wanted(entry.kind, entry.first) {
                continue;
            }
            let (holder, _) = split(entry.reference);
            let index = match indices.get(&holder) {
                Some(index) => *index,
                None => {
                    file.records.push(self.extension(entry, number, Some(sequence))?);
                    let index = file.records.len().saturating_sub(1);
                    indices.insert(holder, index);
                    index
                }
            };
            let place = file.place(index, entry)?;
            file.places.push((entry.kind, index, place));
        }
        Ok(file)
    }
}

impl File {
    /// Finds the offset of the attribute in a record that an entry of a list names.
    fn place(&self, index: usize, entry: &ListEntry) -> Result<usize> {
        let Some(record) = self.records.get(index) else { return Ok(0) };
        let attributes = record.attributes()?;
        let found = entry.find(&attributes)?;
        let mut at = usize::from(record.bytes.u16(0x14)?);
        for attribute in &attributes {
            if std::ptr::eq(attribute, found) {
                break;
            }
            at = at.saturating_add(attribute.length);
        }
        Ok(at)
    }

    fn base(&self) -> Result<&Record> {
        self.records.first().ok_or_else(|| damaged("a file has no record"))
    }

    /// Returns the reference that names of the file have, with the sequence number.
    pub(super) fn reference(&self) -> Result<u64> {
        self.base().map(|record| u64::from(record.sequence) << NUMBER_BITS | record.number)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.base().is_ok_and(|record| record.flags & DIRECTORY != 0)
    }

    /// Returns the number of names that the record of the file counts, those of DOS included.
    pub(super) fn links(&self) -> u16 {
        self.base().map_or(0, |record| record.links)
    }

    /// Returns the attributes of a kind, in their order.
    pub(super) fn all(&self, kind: u32) -> Result<Vec<Attribute<'_>>> {
        let mut found = Vec::new();
        for (_, index, at) in self.places.iter().filter(|(found, ..)| *found == kind) {
            if let Some(record) = self.records.get(*index) {
                found.push(record.attribute(*at)?);
            }
        }
        Ok(found)
    }

    /// Returns the pieces of an attribute, in the order of its clusters. Empty if there is no such attribute.
    pub(super) fn pieces(&self, kind: u32, name: &[u8]) -> Result<Vec<Attribute<'_>>> {
        let mut found = self.all(kind)?;
        found.retain(|attribute| attribute.name == name);
        found.sort_by_key(Attribute::first);
        Ok(found)
    }

    /// Returns the names of the streams besides the main one, in UTF-16, and their first pieces.
    pub(super) fn streams(&self) -> Result<Vec<Attribute<'_>>> {
        let mut found = self.all(DATA)?;
        found.retain(|attribute| !attribute.name.is_empty() && attribute.first() == 0);
        Ok(found)
    }
}
