//! Images that claim to be huge, or are made to be expensive.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::builder::{Image, Item, Locator, Region, Spec, VHDX_LOCATOR};
use crate::log::{Descriptor, Entry, Journal, LOG_GUID};
use crate::{Block, GIB, MIB, PAGE, TIB};

/// The commands that read structures only: the cost of the others depends on the amount of content.
pub const COMMANDS: [&str; 7] = ["info", "map", "log", "chain", "check", "info --salvage", "map --salvage"];

/// An image, and the exit code of each of the [`COMMANDS`] for it.
pub struct Input {
    pub name: String,
    pub path: PathBuf,
    pub codes: [i32; COMMANDS.len()],
}

/// Size of an input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// This part of the size for tests: 4 for a quarter of it.
    Part(u64),
    /// As large as the format allows, or several GiB.
    Large,
}

impl Size {
    fn of(self, test: u64, large: u64) -> u64 {
        match self {
            Self::Part(part) => test / part,
            Self::Large => large,
        }
    }
}

pub type Make = fn(&Path, Size) -> Input;

/// All inputs, made one at a time in their own folders.
pub const ALL: &[Make] = &[
    empty_disk,
    long_table,
    written_table,
    scattered_blocks,
    lost_tail,
    long_claims,
    sparse_log,
    long_zeros,
    many_sectors,
    many_zeros,
    many_regions,
    overlapping_regions,
    many_items,
    shared_keys,
    many_keys,
    long_path,
    many_similar_names,
    long_chain,
    endless_chain,
    circle,
    own_parent,
];

const FINE: [i32; COMMANDS.len()] = [0; COMMANDS.len()];
/// An image that cannot be opened, except for its log.
const CORRUPT: [i32; COMMANDS.len()] = [65, 65, 0, 65, 2, 65, 65];
/// For an image without its parent, `info` shows what the image itself holds.
const BROKEN_CHAIN: [i32; COMMANDS.len()] = [0, 65, 0, 65, 2, 65, 65];

fn input(folder: &Path, name: impl Into<String>, image: &Image, codes: [i32; COMMANDS.len()]) -> Input {
    let path = folder.join("image.vhdx");
    image.bytes.write_file(&path).unwrap();
    Input { name: name.into(), path, codes }
}

/// A length in the largest unit of which it is a multiple.
fn text(length: u64) -> String {
    let units = [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (1 << 10, "KiB"), (1, "bytes")];
    let (unit, name) = units.into_iter().find(|(unit, _)| length.is_multiple_of(*unit)).unwrap();
    format!("{} {name}", length / unit)
}

/// The largest disk, in blocks of 1 MiB, none of which is allocated.
pub fn empty_disk(folder: &Path, size: Size) -> Input {
    let size = size.of(64, 64) * TIB;
    let image = Spec::empty(size).build();
    input(folder, format!("a disk of {}, of which nothing is present", text(size)), &image, FINE)
}

/// The longest BAT region that can be stored, in a file of that length.
fn long_table(folder: &Path, size: Size) -> Input {
    let size = size.of(64, 64) * TIB;
    let mut spec = Spec::empty(size);
    spec.bat_length = Some(u32::try_from(size / TIB * 64 * MIB - MIB).unwrap());
    let name = format!("the same with a BAT region of {} - 1 MiB", text(size / TIB * 64 * MIB));
    input(folder, name, &spec.build(), FINE)
}

/// Fills the BAT of an image, one entry for each block.
fn fill_table(input: &Input, image: &Image, entry: impl Fn(u64) -> u64) {
    let file = File::options().write(true).open(&input.path).unwrap();
    let mut at = image.bat_entry_at(0);
    let mut block = 0;
    while block < image.geometry.blocks {
        let some = block..image.geometry.blocks.min(block + image.geometry.ratio);
        let entries: Vec<u8> = some.clone().flat_map(|block| entry(block).to_le_bytes()).collect();
        file.write_all_at(&entries, at).unwrap();
        // After the entries of a chunk comes that of its sector bitmap.
        (block, at) = (some.end, at + (some.end - some.start + 1) * 8);
    }
}

/// A table with every byte in the file.
pub fn written_table(folder: &Path, size: Size) -> Input {
    let size = size.of(8 * TIB, 64 * TIB);
    let image = Spec::empty(size).build();
    let name = format!(
        "{}, whose table of {} is all written",
        text(size),
        text((image.geometry.entries * 8).next_multiple_of(MIB))
    );
    let made = input(folder, name, &image, FINE);
    fill_table(&made, &image, |_| 2);
    made
}

/// Blocks of which no two successive ones are contiguous: as many extents as blocks.
pub fn scattered_blocks(folder: &Path, size: Size) -> Input {
    let blocks = size.of(1 << 17, 1 << 20);
    let image = Spec::empty(blocks * MIB).block(0, Block::full().at(64 * MIB)).build();
    let made = input(folder, format!("{blocks} blocks that all lie in two places"), &image, [0, 0, 0, 0, 2, 65, 65]);
    File::options().write(true).open(&made.path).unwrap().set_len(70 * MIB).unwrap();
    fill_table(&made, &image, |block| ((64 + block % 2 * 3) * MIB) | 6);
    made
}

/// Blocks with a gap after each, in a file that is a hole after its BAT.
pub fn many_gaps(folder: &Path, size: Size) -> Input {
    let blocks = size.of(1 << 22, 7 << 20);
    let image = Spec::empty(blocks * MIB).build();
    let made = input(folder, format!("{blocks} blocks with gaps between them"), &image, FINE);
    File::options().write(true).open(&made.path).unwrap().set_len((64 + 2 * blocks) * MIB).unwrap();
    fill_table(&made, &image, |block| ((64 + block * 2) * MIB) | 6);
    made
}

/// An image with its log after everything else.
fn with_log(length: u64) -> Image {
    let mut spec = Spec::default();
    (spec.log_offset, spec.log_length) = (16 * MIB, u32::try_from(length).unwrap());
    let mut image = spec.build();
    image.set_log_guid(LOG_GUID);
    image
}

/// Writes an entry at every multiple of this many sectors of the log, without keeping them in memory.
fn fill_log(input: &Input, image: &Image, step: u64, entry: impl Fn(u64) -> Vec<u8>) {
    let file = File::options().write(true).open(&input.path).unwrap();
    let sectors = u64::from(image.spec.log_length) / PAGE;
    for first in (0..sectors).step_by(256) {
        let some = (first..sectors.min(first + 256)).filter(|sector| sector.is_multiple_of(step));
        some.for_each(|sector| file.write_all_at(&entry(sector), image.spec.log_offset + sector * PAGE).unwrap());
    }
}

/// A log of valid entries that lack the one they need.
pub fn lost_tail(folder: &Path, size: Size) -> Input {
    let length = size.of(64 * MIB, GIB);
    let image = with_log(length);
    let entries = length / PAGE - 1;
    let name = format!("a log of {} full of valid entries, whose tail is no entry", text(length));
    let made = input(folder, name, &image, CORRUPT);
    fill_log(&made, &image, 1, |sector| match sector {
        last if last == entries => vec![0; 4096],
        _ => Entry::new(LOG_GUID, sector + 1, u32::try_from(entries * PAGE).unwrap()).encode(),
    });
    made
}

/// A log in which every sector begins an entry that claims the whole log.
pub fn long_claims(folder: &Path, size: Size) -> Input {
    let length = size.of(64 * MIB, GIB);
    let image = with_log(length);
    let name = format!("a log of {}, in which every sector claims to be an entry as long", text(length));
    let made = input(folder, name, &image, CORRUPT);
    let (length, count) = (u32::try_from(length).unwrap(), u32::try_from(length / 64).unwrap());
    fill_log(&made, &image, 1, |sector| {
        let mut bytes = Entry::new(LOG_GUID, sector + 1, 0).zero(3 * MIB, PAGE).encode();
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[24..28].copy_from_slice(&count.to_le_bytes());
        bytes
    });
    made
}

/// The longest log that can be stored, with invalid entries here and there.
pub fn sparse_log(folder: &Path, size: Size) -> Input {
    let image = with_log(0xFFF0_0000);
    // Entries in each 4 MiB of the log.
    let step = 1024 / size.of(16, 64);
    let name =
        format!("a sparse log of 4 GiB - 1 MiB, with an entry in each {} whose checksum fails", text(step * PAGE));
    // Longer than what is replayed.
    let made = input(folder, name, &image, [69, 69, 0, 69, 63, 65, 65]);
    fill_log(&made, &image, step, |sector| Entry::new(LOG_GUID, sector + 1, 0).bad_crc().encode());
    made
}

/// The same long range of zeros, many times.
pub fn long_zeros(folder: &Path, size: Size) -> Input {
    let count = size.of(6000, 6000);
    let mut image = Spec::default().build();
    let end = image.bytes.len();
    let zeros: Vec<Descriptor> = (0..count).map(|number| Descriptor::Zero(end + number * PAGE, 1 << 63)).collect();
    Journal::new(0, 5).append(&mut image, &zeros);
    image.set_log_guid(LOG_GUID);
    input(folder, format!("a log of {count} zero descriptors of 2^63 bytes each"), &image, FINE)
}

/// A log full of entries, all of which are replayed, with this many changes each. The closure makes a change from its
/// number.
fn full_log(input: &Input, image: &Image, changes: u64, change: impl Fn(u64) -> Descriptor) {
    let file = File::options().write(true).open(&input.path).unwrap();
    let (mut at, mut number, end) = (0, 0, image.bytes.len());
    loop {
        let place = |change: u64| end + (number * changes + change) * 2 * PAGE;
        let descriptors = (0..changes).map(|index| change(place(index))).collect();
        let bytes = Entry { descriptors, ..Entry::new(LOG_GUID, number + 1, 0) }.encode();
        let length = u64::try_from(bytes.len()).unwrap();
        if at + length > u64::from(image.spec.log_length) {
            return;
        }
        file.write_all_at(&bytes, image.spec.log_offset + at).unwrap();
        (at, number) = (at + length, number + 1);
    }
}

/// Changes that a replay has to keep: sectors, all at different offsets.
pub fn many_sectors(folder: &Path, size: Size) -> Input {
    let length = size.of(16 * MIB, 256 * MIB);
    let image = with_log(length);
    let made = input(folder, format!("a log of {} full of sectors to be replayed", text(length)), &image, FINE);
    full_log(&made, &image, 126, |at| Descriptor::Data(at, vec![7; 4096]));
    made
}

/// Ranges of zeros, which need less space in the log each.
pub fn many_zeros(folder: &Path, size: Size) -> Input {
    let length = size.of(16 * MIB, 256 * MIB);
    let image = with_log(length);
    let made =
        input(folder, format!("a log of {} full of zero descriptors to be replayed", text(length)), &image, FINE);
    full_log(&made, &image, 126 + 7 * 128, |at| Descriptor::Zero(at, PAGE));
    made
}

fn regions(count: u64, place: impl Fn(u64) -> u64) -> Spec {
    let mut spec = Spec { payload_start: 3000 * MIB, ..Spec::default() };
    let region = |number: u64| {
        let guid = Uuid::from_u128(number.into());
        Region { guid, offset: place(number), length: 1 << 20, required: 0 }
    };
    spec.extra_regions = (10..10 + count).rev().map(region).collect();
    spec
}

/// As many regions as a table has space for.
pub fn many_regions(folder: &Path, size: Size) -> Input {
    let count = size.of(2045, 2045);
    input(folder, format!("{} regions", count + 2), &regions(count, |number| number * MIB).build(), FINE)
}

/// As many regions, all of which overlap.
pub fn overlapping_regions(folder: &Path, size: Size) -> Input {
    let count = size.of(2045, 2045);
    input(folder, format!("{} regions in one place", count + 2), &regions(count, |_| 10 * MIB).build(), CORRUPT)
}

/// As many metadata items as a table has space for, most of them unordered.
pub fn many_items(folder: &Path, size: Size) -> Input {
    let count = size.of(2041, 2041);
    let mut spec = Spec::default();
    for number in 0..count {
        let mut item = Item::new(Uuid::from_u128(0xABCD_0000 + u128::from(number / 2)), 8, &[]);
        (item.offset, item.length) = (Some(0x2_0000), Some(0x8_0000));
        spec.items.push(item);
    }
    let name = format!("{} metadata items, most of them twice and in one place", count + 6);
    input(folder, name, &spec.build(), FINE)
}

/// A child with this locator.
fn child_with(locator: Locator) -> Image {
    let mut spec = Spec::child_of(&Spec::default(), "base.vhdx");
    (spec.locator, spec.metadata_length, spec.bat_offset) = (Some(locator), 2 << 20, 4 * MIB);
    spec.build()
}

/// A locator with the maximum number of keys, each of which is the same text of 64 KiB, like its value.
pub fn shared_keys(folder: &Path, size: Size) -> Input {
    let count = u16::try_from(size.of(65_535, 65_535)).unwrap();
    let mut raw = VHDX_LOCATOR.to_bytes_le().to_vec();
    raw.extend([[0, 0], count.to_le_bytes()].concat());
    let (strings, length) = (20_u32 + 12 * u32::from(count), 65_534_u16);
    for _ in 0..count {
        raw.extend([strings.to_le_bytes(), strings.to_le_bytes()].concat());
        raw.extend([length.to_le_bytes(), length.to_le_bytes()].concat());
    }
    raw.extend("x".encode_utf16().flat_map(u16::to_le_bytes).cycle().take(usize::from(length)));
    let image = child_with(Locator::Raw(raw));
    input(folder, format!("a locator of {count} keys, all of them the same 64 KiB"), &image, BROKEN_CHAIN)
}

/// A locator of as many different keys as fit into 1 MiB.
pub fn many_keys(folder: &Path, size: Size) -> Input {
    let count = size.of(38_000, 38_000);
    let mut locator = Locator::linked_to(Uuid::from_u128(0xDA7A_0001), "base.vhdx");
    if let Locator::Pairs(_, pairs) = &mut locator {
        pairs.extend((0..count).map(|number| (format!("{number:x}"), "v".to_owned())));
    }
    let made = input(folder, format!("a locator of {} keys", count + 5), &child_with(locator), FINE);
    Spec::default().build().bytes.write_file(&folder.join("base.vhdx")).unwrap();
    made
}

/// A child that names its parent like this.
fn child_at(folder: &Path, name: String, stored: &str, codes: [i32; COMMANDS.len()]) -> Input {
    let locator = Locator::linked_to(Uuid::from_u128(0xDA7A_0001), stored);
    input(folder, name, &child_with(locator), codes)
}

/// A stored path of as many folders as fit, none of which exists.
fn long_path(folder: &Path, size: Size) -> Input {
    let count = size.of(16_000, 16_000);
    let stored = "a\\".repeat(usize::try_from(count).unwrap()) + "base.vhdx";
    child_at(folder, format!("a stored path of {count} folders"), &stored, [0, 81, 0, 81, 1, 65, 65])
}

/// A parent whose name differs from those of many files in upper and lower case only.
fn many_similar_names(folder: &Path, size: Size) -> Input {
    let count = size.of(2048, 2048);
    for number in 0..count {
        let letters = "abcdefghijk".chars().enumerate();
        let is_upper = |bit: usize| number >> bit & 1 == 1;
        let name: String =
            letters.map(|(bit, letter)| if is_upper(bit) { letter.to_ascii_uppercase() } else { letter }).collect();
        File::create_new(folder.join(format!("{name}x"))).unwrap();
    }
    child_at(folder, format!("a parent whose name is like those of {count} files"), "ABCDEFGHIJKX", BROKEN_CHAIN)
}

/// A chain of this many images of this size, the base first; returns the path of the last.
fn write_chain(folder: &Path, count: u64, disk_size: u64) -> PathBuf {
    let mut spec = Spec::empty(disk_size);
    for number in 0..count {
        let name = format!("{number}.vhdx");
        spec.build().bytes.write_file(&folder.join(&name)).unwrap();
        spec = Spec::child_of(&spec, &name).block(number * 1000, Block::partial(&[number..number + 1, 2000..2001]));
    }
    folder.join(format!("{}.vhdx", count - 1))
}

fn long_chain(folder: &Path, size: Size) -> Input {
    let (parents, disk_size) = match size {
        // So many that most layers are not among the few whose tables are kept.
        Size::Part(part @ 2..) => (512 / part, TIB),
        Size::Part(_) | Size::Large => (256, 64 * TIB),
    };
    let path = write_chain(folder, parents + 1, disk_size);
    Input { name: format!("a chain of {parents} parents, {} each", text(disk_size)), path, codes: FINE }
}

fn endless_chain(folder: &Path, _: Size) -> Input {
    let path = write_chain(folder, 300, 64 * TIB);
    Input { name: "a chain of 299 parents".to_owned(), path, codes: [0, 69, 0, 69, 63, 65, 65] }
}

/// A child that refers to its parent by name and identity.
fn child_of(identity: u128, parent: u128, name: &str) -> Image {
    let spec = Spec { data_write_guid: Uuid::from_u128(parent), ..Spec::default() };
    Spec { data_write_guid: Uuid::from_u128(identity), ..Spec::child_of(&spec, name) }.build()
}

fn circle(folder: &Path, _: Size) -> Input {
    child_of(2, 3, "third.vhdx").bytes.write_file(&folder.join("second.vhdx")).unwrap();
    child_of(3, 1, "image.vhdx").bytes.write_file(&folder.join("third.vhdx")).unwrap();
    input(folder, "three images, each the parent of the next", &child_of(1, 2, "second.vhdx"), BROKEN_CHAIN)
}

fn own_parent(folder: &Path, _: Size) -> Input {
    input(folder, "an image that is its own parent", &child_of(1, 1, "image.vhdx"), BROKEN_CHAIN)
}
