//! Truncated files: which bytes are lost follows from the offsets that the builder has chosen, and no other byte is
//! lost.

use std::ops::Range;

use crate::builder::{Image, LOGICAL_SECTOR, PARENT_LOCATOR, Spec};
use crate::lab::{run, wide};
use crate::{Block, MIB};

/// The same image in a file that ends at `length`.
pub fn cut(image: &Image, length: u64) -> Image {
    let mut image = image.clone();
    image.bytes.truncate(length.min(image.bytes.len()));
    image
}

/// Lost parts of a range of the disk of a chain with truncated files, by the offsets of the builder: in order, with
/// adjacent ranges merged.
pub fn lost(chain: &[&Image], range: Range<u64>) -> Vec<Range<u64>> {
    let mut pieces = Vec::new();
    lose(chain, range, &mut pieces);
    merged(pieces)
}

pub fn merged(pieces: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for piece in pieces {
        match out.last_mut() {
            Some(before) if before.end == piece.start => before.end = piece.end,
            _ => out.push(piece),
        }
    }
    out
}

/// Whether the file holds all bytes before `end`.
fn has(image: &Image, end: u64) -> bool {
    end <= image.bytes.len()
}

/// Whether the file holds the items that are needed to understand its BAT; everything else is before them.
pub fn has_sizes(image: &Image) -> bool {
    has(image, image.item_at(LOGICAL_SECTOR) + 4)
}

fn has_locator(image: &Image) -> bool {
    let locator = image.spec.locator.as_ref();
    locator.is_some_and(|locator| has(image, image.item_at(PARENT_LOCATOR) + wide(locator.encode().len())))
}

fn lose(chain: &[&Image], range: Range<u64>, out: &mut Vec<Range<u64>>) {
    let (image, parents) = chain.split_first().unwrap();
    let (block_size, sector_size) = (u64::from(image.spec.block_size), u64::from(image.spec.sector_size));
    let below = |range: Range<u64>, out: &mut Vec<Range<u64>>| match parents.first() {
        _ if !image.spec.has_parent => {}
        Some(parent) if has_locator(image) && has_sizes(parent) => lose(parents, range, out),
        _ => out.push(range),
    };
    let end = range.end.min(image.spec.disk_size);
    let mut at = range.start;
    while at < end {
        let number = at / block_size;
        let (start, stop) = (number * block_size, end.min((number + 1) * block_size));
        let block = image.spec.blocks.get(&number);
        // Of a piece in the block itself, the part past the end of the file.
        let own = |piece: Range<u64>, out: &mut Vec<Range<u64>>| {
            let from = piece.start.max(start + image.bytes.len().saturating_sub(image.block_at(number)));
            if from < piece.end {
                out.push(from..piece.end);
            }
        };
        match block.map_or(0, |block| block.state) {
            _ if !has(image, image.block_entry_at(number) + 8) => out.push(at..stop),
            0 => below(at..stop, out),
            6 => own(at..stop, out),
            7 => {
                let chunk = number / image.geometry.ratio;
                let bits = image.bitmap_at(chunk) + number % image.geometry.ratio * block_size / sector_size / 8;
                while at < stop {
                    let sector = (at - start) / sector_size;
                    let piece = at..stop.min(start + (sector + 1) * sector_size);
                    at = piece.end;
                    if !has(image, image.bitmap_entry_at(chunk) + 8) || !has(image, bits + sector / 8 + 1) {
                        out.push(piece);
                    } else if block.unwrap().present.iter().any(|run| run.contains(&sector)) {
                        own(piece, out);
                    } else {
                        below(piece, out);
                    }
                }
            }
            _ => {}
        }
        at = stop;
    }
}

/// A base with large blocks, and two children: sectors of all three are adjacent.
pub fn chain_of_three(bat_offset: u64) -> [Spec; 3] {
    let base = Spec { block_size: 2 << 20, bat_offset, ..Spec::empty(6 * MIB - 512) };
    let base = (0..3).fold(base, |spec, number| spec.block(number, Block::full()));
    let middle = Spec { block_size: 1 << 20, bat_offset, ..Spec::child_of(&base, "2.vhdx") };
    let middle = middle.block(0, Block::partial(&[0..100, 1000..1500])).block(3, Block::full()).block(4, Block::zero());
    let top = Spec { bat_offset, ..Spec::child_of(&middle, "1.vhdx") };
    let top = top
        .block(0, Block::partial(&[50..200, 2040..2048]))
        .block(1, Block::partial(&run(16..17)))
        .block(5, Block::full());
    [top, middle, base]
}
