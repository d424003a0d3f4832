//! What a server offers: disks, partitions and checkpoints, by name.

use std::ops::Range;
use std::sync::Arc;

use vhdx_mmap::{Disk, DiskRange, Location, Result, ops};

/// A disk or a part of one, with the name by which clients ask for it.
#[derive(Clone, Debug)]
pub struct Export {
    name: String,
    description: String,
    range: DiskRange<Arc<Disk>>,
    can_borrow: bool,
}

impl Export {
    /// Makes an export. `name` and `description` have at most 4096 bytes each; longer ones are cut.
    pub fn new(name: &str, description: &str, range: DiskRange<Arc<Disk>>) -> Self {
        let cut = |text: &str| text.char_indices().take_while(|(at, _)| *at < 4092).map(|(_, c)| c).collect();
        // What a salvage reads as zeros may be lost, and that is known only of bytes that were copied.
        let can_borrow = range.disk().can_borrow() && !range.disk().is_salvaged();
        Self { name: cut(name), description: cut(description), range, can_borrow }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the text for people.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Returns the content.
    #[must_use]
    pub fn range(&self) -> &DiskRange<Arc<Disk>> {
        &self.range
    }

    /// Whether content can be sent from where it lies.
    pub(super) fn can_borrow(&self) -> bool {
        self.can_borrow
    }

    /// Returns the parts of a range, as long as possible.
    pub(super) fn parts(&self, range: Range<u64>) -> Result<Vec<Part>> {
        let mut parts: Vec<Part> = Vec::new();
        for run in self.range.extents(range.clone()) {
            let run = run?;
            if run.at == Location::Lost {
                self.fail_if_lost(range.clone())?;
            }
            let is_hole = run.at == Location::Zero;
            match parts.last_mut() {
                Some(last) if last.is_hole == is_hole => last.range.end = run.end(),
                _ => parts.push(Part { range: run.start..run.end(), is_hole }),
            }
        }
        Ok(parts)
    }

    /// Fails if a salvage could not read a part of the range, and took it for zeros.
    pub(super) fn fail_if_lost(&self, range: Range<u64>) -> Result<()> {
        let disk = self.range.disk();
        if !disk.is_salvaged() {
            return Ok(());
        }
        let start = self.range.start();
        let lost = disk.losses(start.saturating_add(range.start)..start.saturating_add(range.end)).next();
        lost.map_or(Ok(()), |loss| Err(loss.reason))
    }

    /// Returns the exports of a disk: the whole disk as `disk`, its partitions as `part1`, `part2`, …, and the disk at
    /// each of its checkpoints: `layer0` is the opened image, `layer1` its parent. With a name for the image, the whole
    /// disk has this name, and the others begin with it: `NAME/part1`.
    ///
    /// # Errors
    /// Fails if the sectors with the partition table cannot be read. [`Export::without_partitions`] does not read any.
    pub fn of_disk(disk: &Arc<Disk>, image: Option<&str>) -> Result<Vec<Self>> {
        let mut exports = Self::without_partitions(disk, image);
        let partitions = ops::detect(disk)?.partition_table.map_or_else(Vec::new, |table| table.partitions);
        let parts = partitions.iter().map(|partition| {
            // A partition may claim more than the disk has.
            let end = partition.start.saturating_add(partition.length).min(disk.size());
            let range = DiskRange::new(Arc::clone(disk), partition.start.min(end)..end)?;
            let volume = partition.volume.map_or("unknown content", ops::Volume::as_str);
            let description = format!("partition {}: {}, {volume}", partition.number, partition.kind);
            Ok(Self::new(&name_of(image, &format!("part{}", partition.number)), &description, range))
        });
        exports.splice(1..1, parts.collect::<Result<Vec<_>>>()?);
        Ok(exports)
    }

    /// Returns the exports of [`Export::of_disk`] except for the partitions.
    #[must_use]
    pub fn without_partitions(disk: &Arc<Disk>, image: Option<&str>) -> Vec<Self> {
        let whole = Self::new(image.unwrap_or("disk"), "the whole disk", DiskRange::whole(Arc::clone(disk)));
        let layers = (0..disk.layers().len()).filter_map(|layer| {
            let of_layer = if layer == 0 { Arc::clone(disk) } else { Arc::new(disk.ancestor(layer)?) };
            let file = of_layer.image().path().and_then(std::path::Path::file_name).unwrap_or_default();
            let description = format!("the disk of layer {layer}: {}", file.to_string_lossy());
            Some(Self::new(&name_of(image, &format!("layer{layer}")), &description, DiskRange::whole(of_layer)))
        });
        std::iter::once(whole).chain(layers).collect()
    }
}

/// A part of a range that is either data or a hole.
pub(super) struct Part {
    pub(super) range: Range<u64>,
    pub(super) is_hole: bool,
}

fn name_of(image: Option<&str>, part: &str) -> String {
    image.map_or_else(|| part.to_owned(), |image| format!("{image}/{part}"))
}

/// The exports of a server.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    list: Vec<Export>,
    has_default: bool,
}

impl Exports {
    /// Makes a list of exports. With `has_default`, a client that gives no name gets the first one.
    #[must_use]
    pub fn new(list: Vec<Export>, has_default: bool) -> Self {
        Self { list, has_default }
    }

    /// Returns the exports in order.
    pub fn iter(&self) -> impl Iterator<Item = &Export> {
        self.list.iter()
    }

    /// Returns whether a client that gives no name gets the first export.
    #[must_use]
    pub fn has_default(&self) -> bool {
        self.has_default
    }

    /// Returns the export of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Export> {
        let named = self.list.iter().find(|export| export.name == name);
        named.or_else(|| self.list.first().filter(|_| self.has_default && name.is_empty()))
    }
}
