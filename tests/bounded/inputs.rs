//! Images that claim to be huge, or are made to be tedious.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::COMMANDS;
use crate::kit::builder::{Image, Item, Locator, Region, Spec, VHDX_LOCATOR};
use crate::kit::log::{Descriptor, Entry, Journal, LOG_GUID};
use crate::kit::{Block, GIB, MIB, PAGE, TIB};

/// An image, and how each of the [`COMMANDS`] must end with it.
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) codes: [i32; COMMANDS.len()],
}

/// Whether the inputs are for a test, or as large as they can be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Large,
}

impl Size {
    fn of<T>(self, small: T, large: T) -> T {
        match self {
            Self::Small => small,
            Self::Large => large,
        }
    }
}

pub(crate) type Make = fn(&Path, Size) -> Input;

/// All of them, made one at a time in a folder of their own.
pub(crate) const ALL: &[Make] = &[
    empty_disk,
    long_table,
    written_table,
    scattered_blocks,
    lost_tail,
    claims_of_length,
    sparse_log,
    long_zeros,
    many_sectors,
    many_zeros,
    many_regions,
    regions_in_one_place,
    many_items,
    shared_keys,
    many_keys,
    long_chain,
    endless_chain,
    circle,
    own_parent,
];

const FINE: [i32; COMMANDS.len()] = [0; COMMANDS.len()];
/// What can't be opened; its log can be told all the same.
const CORRUPT: [i32; COMMANDS.len()] = [65, 65, 0, 65, 2, 65, 65];
/// Of an image without a parent, `info` tells what it says of itself.
const BROKEN_CHAIN: [i32; COMMANDS.len()] = [0, 65, 0, 65, 2, 65, 65];

fn input(folder: &Path, name: impl Into<String>, image: &Image, codes: [i32; COMMANDS.len()]) -> Input {
    let path = folder.join("image.vhdx");
    image.bytes.write_file(&path).unwrap();
    Input { name: name.into(), path, codes }
}

fn gib(length: u64) -> String {
    if length < GIB { format!("{} MiB", length / MIB) } else { format!("{} GiB", length / GIB) }
}

/// 64 TiB of nothing, in blocks of 1 MiB.
pub(crate) fn empty_disk(folder: &Path, _: Size) -> Input {
    let image = Spec::empty(64 * TIB).build();
    input(folder, "a disk of 64 TiB, of which nothing is present", &image, FINE)
}

/// A BAT region as long as can be said, in a file that is as long.
fn long_table(folder: &Path, _: Size) -> Input {
    let mut spec = Spec::empty(64 * TIB);
    spec.bat_length = Some(0xFFF0_0000);
    input(folder, "the same with a BAT region of 4 GiB - 1 MiB", &spec.build(), FINE)
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
        // Behind the entries of a chunk is that of its sector bitmap.
        (block, at) = (some.end, at + (some.end - some.start + 1) * 8);
    }
}

/// A table of which every byte is in the file.
pub(crate) fn written_table(folder: &Path, size: Size) -> Input {
    let tebibytes = size.of(8, 64);
    let image = Spec::empty(tebibytes * TIB).build();
    let name = format!("{tebibytes} TiB, whose table of {} is all written", gib(image.geometry.entries * 8));
    let made = input(folder, name, &image, FINE);
    fill_table(&made, &image, |_| 2);
    made
}

/// Blocks of which no two that follow one another lie together: as many extents as blocks.
fn scattered_blocks(folder: &Path, size: Size) -> Input {
    let blocks = size.of(1 << 17, 1 << 20);
    let image = Spec::empty(blocks * MIB).block(0, Block::full().at(64 * MIB)).build();
    let made = input(folder, format!("{blocks} blocks that all lie in two places"), &image, [0, 0, 0, 0, 2, 65, 65]);
    File::options().write(true).open(&made.path).unwrap().set_len(70 * MIB).unwrap();
    fill_table(&made, &image, |block| ((64 + block % 2 * 3) * MIB) | 6);
    made
}

/// Blocks with a gap behind each, in a file that is one hole behind its BAT.
pub(crate) fn many_gaps(folder: &Path, size: Size) -> Input {
    let blocks = size.of(1 << 22, 7 << 20);
    let image = Spec::empty(blocks * MIB).build();
    let made = input(folder, format!("{blocks} blocks with gaps between them"), &image, FINE);
    File::options().write(true).open(&made.path).unwrap().set_len((64 + 2 * blocks) * MIB).unwrap();
    fill_table(&made, &image, |block| ((64 + block * 2) * MIB) | 6);
    made
}

/// An image with its log behind everything else.
fn with_log(length: u64) -> Image {
    let mut spec = Spec::default();
    (spec.log_offset, spec.log_length) = (16 * MIB, u32::try_from(length).unwrap());
    let mut image = spec.build();
    image.set_log_guid(LOG_GUID);
    image
}

/// Writes an entry at the beginning of every so many sectors of the log, without keeping them.
fn fill_log(input: &Input, image: &Image, step: u64, entry: impl Fn(u64) -> Vec<u8>) {
    let file = File::options().write(true).open(&input.path).unwrap();
    let sectors = u64::from(image.spec.log_length) / PAGE;
    for first in (0..sectors).step_by(256) {
        let some = (first..sectors.min(first + 256)).filter(|sector| sector.is_multiple_of(step));
        some.for_each(|sector| file.write_all_at(&entry(sector), image.spec.log_offset + sector * PAGE).unwrap());
    }
}

/// A log of valid entries that lack the one they need.
fn lost_tail(folder: &Path, size: Size) -> Input {
    let length = size.of(64 * MIB, GIB);
    let image = with_log(length);
    let entries = length / PAGE - 1;
    let name = format!("a log of {} full of valid entries, whose tail is no entry", gib(length));
    let made = input(folder, name, &image, CORRUPT);
    fill_log(&made, &image, 1, |sector| match sector {
        last if last == entries => vec![0; 4096],
        _ => Entry::new(LOG_GUID, sector + 1, u32::try_from(entries * PAGE).unwrap()).encode(),
    });
    made
}

/// A log in which every sector begins an entry that claims the whole of it.
fn claims_of_length(folder: &Path, size: Size) -> Input {
    let length = size.of(64 * MIB, GIB);
    let image = with_log(length);
    let name = format!("a log of {}, in which every sector claims to be an entry as long", gib(length));
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

/// The longest log that can be said, with an entry here and there that is not quite right.
fn sparse_log(folder: &Path, size: Size) -> Input {
    let image = with_log(0xFFF0_0000);
    let step = size.of(64, 16);
    let name = format!("a sparse log of 4 GiB - 1 MiB, with an entry in each {} KiB whose checksum fails", step * 4);
    // Longer than what is replayed.
    let made = input(folder, name, &image, [69, 69, 0, 69, 63, 65, 65]);
    fill_log(&made, &image, step, |sector| Entry::new(LOG_GUID, sector + 1, 0).bad_crc().encode());
    made
}

/// Zeros without end, over and over.
fn long_zeros(folder: &Path, _: Size) -> Input {
    let mut image = Spec::default().build();
    let end = image.bytes.len();
    let zeros: Vec<Descriptor> = (0..6000).map(|number| Descriptor::Zero(end + number * PAGE, 1 << 63)).collect();
    Journal::new(0, 5).append(&mut image, &zeros);
    image.set_log_guid(LOG_GUID);
    input(folder, "a log of 6000 zero descriptors of 2^63 bytes each", &image, FINE)
}

/// A log full of entries, all of which are replayed, of so many changes each: of the place of each change, the change.
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

/// What a replay has to keep: sectors, no two of which are one.
fn many_sectors(folder: &Path, size: Size) -> Input {
    let length = size.of(16 * MIB, 256 * MIB);
    let image = with_log(length);
    let made = input(folder, format!("a log of {} full of sectors to be replayed", gib(length)), &image, FINE);
    full_log(&made, &image, 126, |at| Descriptor::Data(at, vec![7; 4096]));
    made
}

/// The same with ranges of zeros, which take less of the log each.
fn many_zeros(folder: &Path, size: Size) -> Input {
    let length = size.of(16 * MIB, 256 * MIB);
    let image = with_log(length);
    let made = input(folder, format!("a log of {} full of zero descriptors to be replayed", gib(length)), &image, FINE);
    full_log(&made, &image, 126 + 7 * 128, |at| Descriptor::Zero(at, PAGE));
    made
}

fn regions(place: impl Fn(u64) -> u64) -> Spec {
    let mut spec = Spec { payload_start: 3000 * MIB, ..Spec::default() };
    let region = |number: u64| {
        let guid = Uuid::from_u128(number.into());
        Region { guid, offset: place(number), length: 1 << 20, required: 0 }
    };
    spec.extra_regions = (10..2055).rev().map(region).collect();
    spec
}

/// As many regions as a table has room for.
fn many_regions(folder: &Path, _: Size) -> Input {
    input(folder, "2047 regions", &regions(|number| number * MIB).build(), FINE)
}

/// The same, one over the other.
fn regions_in_one_place(folder: &Path, _: Size) -> Input {
    input(folder, "2047 regions in one place", &regions(|_| 10 * MIB).build(), CORRUPT)
}

/// As many metadata items as a table has room for, most of them out of order.
fn many_items(folder: &Path, _: Size) -> Input {
    let mut spec = Spec::default();
    for number in 0..2041 {
        let mut item = Item::new(Uuid::from_u128(0xABCD_0000 + number / 2), 8, &[]);
        (item.offset, item.length) = (Some(0x2_0000), Some(0x8_0000));
        spec.items.push(item);
    }
    input(folder, "2047 metadata items, most of them twice and in one place", &spec.build(), FINE)
}

/// A child with this locator.
fn child_with(locator: Locator) -> Image {
    let mut spec = Spec::child_of(&Spec::default(), "base.vhdx");
    (spec.locator, spec.metadata_length, spec.bat_offset) = (Some(locator), 2 << 20, 4 * MIB);
    spec.build()
}

/// A locator of the most keys that can be said, each of which is the same text of 64 KiB, and so is its value.
fn shared_keys(folder: &Path, _: Size) -> Input {
    let mut raw = VHDX_LOCATOR.to_bytes_le().to_vec();
    raw.extend([0, 0, 0xFF, 0xFF]);
    let (strings, length) = (20_u32 + 12 * 65_535, 65_534_u16);
    for _ in 0..65_535 {
        raw.extend([strings.to_le_bytes(), strings.to_le_bytes()].concat());
        raw.extend([length.to_le_bytes(), length.to_le_bytes()].concat());
    }
    raw.extend("x".encode_utf16().flat_map(u16::to_le_bytes).cycle().take(usize::from(length)));
    let image = child_with(Locator::Raw(raw));
    input(folder, "a locator of 65535 keys, all of them the same 64 KiB", &image, BROKEN_CHAIN)
}

/// A locator of as many keys as can be different in 1 MiB.
fn many_keys(folder: &Path, _: Size) -> Input {
    let mut locator = Locator::linked_to(Uuid::from_u128(0xDA7A_0001), "base.vhdx");
    if let Locator::Pairs(_, pairs) = &mut locator {
        pairs.extend((0..38_000).map(|number| (format!("{number:x}"), "v".to_owned())));
    }
    let made = input(folder, "a locator of 38005 keys", &child_with(locator), FINE);
    Spec::default().build().bytes.write_file(&folder.join("base.vhdx")).unwrap();
    made
}

/// A chain of so many images of 64 TiB each, the base first; gives the name of the last.
fn write_chain(folder: &Path, count: u64) -> PathBuf {
    let mut spec = Spec::empty(64 * TIB);
    for number in 0..count {
        let name = format!("{number}.vhdx");
        spec.build().bytes.write_file(&folder.join(&name)).unwrap();
        spec = Spec::child_of(&spec, &name).block(number * 1000, Block::partial(&[number..number + 1, 2000..2001]));
    }
    folder.join(format!("{}.vhdx", count - 1))
}

fn long_chain(folder: &Path, _: Size) -> Input {
    let path = write_chain(folder, 257);
    Input { name: "a chain of 256 parents, 64 TiB each".to_owned(), path, codes: FINE }
}

fn endless_chain(folder: &Path, _: Size) -> Input {
    let path = write_chain(folder, 300);
    Input { name: "a chain of 299 parents".to_owned(), path, codes: [0, 69, 0, 69, 63, 65, 65] }
}

/// A child that knows its parent by name and identity.
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
