//! What is served of a disk: the disk, its partitions and its checkpoints, by name.

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
    pub(crate) fn can_borrow(&self) -> bool {
        self.can_borrow
    }

    /// Returns the parts of a range, as long as possible.
    pub(crate) fn parts(&self, range: Range<u64>) -> Result<Vec<Part>> {
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

    /// Returns the end of the block that has the byte at `at`, at most `end`: where a block cannot be read, later ones
    /// may be.
    pub(crate) fn end_of_block(&self, at: u64, end: u64) -> u64 {
        let block = self.range.disk().block_size();
        let left = block.saturating_sub(self.range.start().saturating_add(at).checked_rem(block).unwrap_or(0)).max(1);
        at.saturating_add(left).min(end)
    }

    /// Fails if a salvage could not read a part of the range, and took it for zeros.
    pub(crate) fn fail_if_lost(&self, range: Range<u64>) -> Result<()> {
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
        let mut portions = Portion::layers_of(disk);
        portions.splice(1..1, Portion::partitions_of(disk)?);
        Ok(portions.into_iter().map(|portion| portion.export(image)).collect())
    }

    /// Returns the exports of [`Export::of_disk`] except for the partitions.
    #[must_use]
    pub fn without_partitions(disk: &Arc<Disk>, image: Option<&str>) -> Vec<Self> {
        Portion::layers_of(disk).into_iter().map(|portion| portion.export(image)).collect()
    }
}

/// What of a disk is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The whole disk.
    Disk,
    /// The partition with this number.
    Partition(u32),
    /// The disk of this layer.
    Layer(usize),
}

/// A portion of a disk that is served.
#[derive(Clone, Debug)]
pub(crate) struct Portion {
    pub(crate) kind: Kind,
    pub(crate) description: String,
    pub(crate) range: DiskRange<Arc<Disk>>,
}

impl Portion {
    /// Returns the whole disk, and the disks of its layers.
    pub(crate) fn layers_of(disk: &Arc<Disk>) -> Vec<Self> {
        let range = DiskRange::whole(Arc::clone(disk));
        let whole = Self { kind: Kind::Disk, description: "the whole disk".to_owned(), range };
        let layers = (0..disk.layers().len()).filter_map(|layer| {
            let of_layer = if layer == 0 { Arc::clone(disk) } else { Arc::new(disk.ancestor(layer)?) };
            let file = of_layer.image().path().and_then(std::path::Path::file_name).unwrap_or_default();
            let description = format!("the disk of layer {layer}: {}", file.to_string_lossy());
            Some(Self { kind: Kind::Layer(layer), description, range: DiskRange::whole(of_layer) })
        });
        std::iter::once(whole).chain(layers).collect()
    }

    /// Returns the partitions of a disk.
    pub(crate) fn partitions_of(disk: &Arc<Disk>) -> Result<Vec<Self>> {
        let partitions = ops::detect(disk)?.partition_table.map_or_else(Vec::new, |table| table.partitions);
        let parts = partitions.iter().map(|partition| {
            // A partition may claim more than the disk has.
            let end = partition.start.saturating_add(partition.len).min(disk.size());
            let range = DiskRange::new(Arc::clone(disk), partition.start.min(end)..end)?;
            let volume = partition.volume.map_or("unknown content", ops::Volume::as_str);
            let description = format!("partition {}: {}, {volume}", partition.number, partition.kind);
            Ok(Self { kind: Kind::Partition(partition.number), description, range })
        });
        parts.collect()
    }

    fn export(self, image: Option<&str>) -> Export {
        let below = |name: String| image.map_or_else(|| name.clone(), |image| format!("{image}/{name}"));
        let name = match self.kind {
            Kind::Disk => image.unwrap_or("disk").to_owned(),
            Kind::Partition(number) => below(format!("part{number}")),
            Kind::Layer(layer) => below(format!("layer{layer}")),
        };
        Export::new(&name, &self.description, self.range)
    }
}

/// A part of a range that is either data or a hole.
pub(crate) struct Part {
    pub(crate) range: Range<u64>,
    pub(crate) is_hole: bool,
}
