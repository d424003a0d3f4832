//! Rules of the BAT, blocks and sector bitmaps: V63 to V73; and leaks.

use super::{AND_MORE, Row, patched, row, try_all, with};
use crate::kit::builder::{FileLength, Image, Slot, Spec};
use crate::kit::{Bitmap, Block, GIB, KIB, MIB, Place};
use crate::lab::run;

/// The BAT is at 0x300000. Blocks 0, 2 and 5 are at 4, 5 and 6 MiB, and the file ends at 7 MiB.
pub(super) fn rows() -> Vec<Row> {
    let place = |mib: u64| (mib * MIB) | 6;
    let leak = "L1 leak file @0x500000";
    let mut zeros = row(
        "a block of zeros",
        patched(|image| image.bytes.write(4 * MIB, &vec![0; 1 << 20])),
        &["N5 note virtual disk"],
    );
    zeros.args = &["--payload"];
    vec![
        row(
            "too few entries",
            too_few_entries(),
            &[
                "V63 corruption BAT @0x300000",
                "V63 corruption BAT entry of payload block 131041 @0x400000 [0x1ffe100000+0x100000]",
            ],
        ),
        row(
            "reserved bits",
            bat(2, place(5) | 8),
            &["V64 note BAT entry of payload block 2 @0x300010 [0x200000+0x100000]"],
        ),
        row("state 4", bat(2, 4), &["V65 corruption BAT entry of payload block 2 @0x300010 [0x200000+0x100000]", leak]),
        row(
            "state 5",
            bat(2, (5 * MIB) | 5),
            &["V65 corruption BAT entry of payload block 2 @0x300010 [0x200000+0x100000]", leak],
        ),
        row(
            "partially present",
            bat(2, (5 * MIB) | 7),
            &["V66 corruption BAT entry of payload block 2 @0x300010 [0x200000+0x100000]", leak],
        ),
        row("no place", bat(2, 6), &["V67 corruption payload block 2 @0x0 [0x200000+0x100000]", leak]),
        row(
            "outside",
            bat(2, place(1 << 20)),
            &["V68 corruption payload block 2 @0x10000000000 [0x200000+0x100000]", leak],
        ),
        row(
            "a cut",
            with(|spec| spec.file_length = FileLength::Exact(6 * MIB + 512 * KIB)),
            &["V68 corruption file [0x580000+0x80000]"],
        ),
        row("on the BAT", bat(2, place(3)), &["V69 corruption payload block 2 @0x300000 [0x200000+0x100000]", leak]),
        row(
            "one place for two",
            bat(2, place(4)),
            &[
                "V69 corruption payload block 0 @0x400000 [0x0+0x100000]",
                "V69 corruption payload block 2 @0x400000 [0x200000+0x100000]",
                leak,
            ],
        ),
        row(
            "an unneeded sector bitmap",
            Spec { raw_bat: [(4096, 5)].into(), ..Spec::empty(5 * GIB) }.build(),
            &["V70 note BAT entry of sector bitmap block 0 @0x308000"],
        ),
        row(
            "a block in the entry of a sector bitmap",
            stray(4096, |_| ()),
            &["V70 corruption BAT entry of sector bitmap block 0 @0x308000 [0x100000000+0x100000]"],
        ),
        row(
            "a block in the entry of a sector bitmap, with a neighbour before it",
            stray(4095, |_| ()),
            &["V70 corruption BAT entry of sector bitmap block 0 @0x308000 [0xfff00000+0x100000]"],
        ),
        row(
            "a block of zeros in the entry of a sector bitmap",
            stray(4096, |image| image.bytes.write(6 * MIB, &vec![0; 1 << 20])),
            &["V70 note BAT entry of sector bitmap block 0 @0x308000", "L1 note file @0x600000"],
        ),
        row(
            "a block in the entry of a sector bitmap, which another entry names, too",
            stray(4096, |image| image.set_bat(9, (6 * MIB) | 6)),
            &["V70 note BAT entry of sector bitmap block 0 @0x308000"],
        ),
        of_child("state of a bitmap", None, |_| 3, &["V71 warning BAT entry of sector bitmap block 0 @0x308000"]),
        of_child(
            "no bitmap",
            Some(0..8),
            |_| 0,
            &[
                "V72 corruption BAT entry of sector bitmap block 0 @0x308000 [0x100000+0x100000]",
                "L1 leak file @0x500000",
            ],
        ),
        of_child(
            "a bitmap outside",
            Some(0..8),
            |_| (1 << 40) | 6,
            &["V72 corruption sector bitmap block 0 @0x10000000000 [0x100000+0x100000]", "L1 leak file @0x500000"],
        ),
        of_child(
            "a bitmap outside, not needed",
            None,
            |_| (1 << 40) | 6,
            &["V72 warning sector bitmap block 0 @0x10000000000"],
        ),
        of_child(
            "a bitmap on the BAT",
            Some(0..8),
            |_| (3 << 20) | 6,
            &["V72 corruption sector bitmap block 0 @0x300000 [0x100000+0x100000]", "L1 leak file @0x500000"],
        ),
        of_child(
            "a bitmap on its block",
            Some(0..8),
            |image| image.block_at(1) | 6,
            &[
                "V69 corruption payload block 1 @0x400000 [0x100000+0x100000]",
                "V69 corruption sector bitmap block 0 @0x400000 [0x0+0x800000]",
                "L1 leak file @0x500000",
                AND_MORE,
            ],
        ),
        row(
            "the place of a block that is not there",
            bat(3, (9 * MIB) | 2),
            &["V73 note BAT entry of payload block 3 @0x300018 [0x300000+0x100000]"],
        ),
        row("forgotten", bat(2, 0), &[leak]),
        row("a fixed image that forgot all blocks", forgotten(true, 0), &["L4 corruption BAT"]),
        row("a fixed image that forgot a block", fixed(|spec| spec.raw_bat = [(2, 0)].into()), &["L4 corruption BAT"]),
        row("a dynamic image that forgot all blocks", forgotten(false, 0), &["L4 unchecked BAT"]),
        row("a dynamic image whose blocks are all trimmed", forgotten(false, 3), &["L1 leak file @0x400000"]),
        row("a dynamic image whose blocks are all zero", forgotten(false, 2), &["L1 leak file @0x400000"]),
        row(
            "a fixed image without blocks, whose rest is zero",
            Spec { leave_blocks_allocated: true, file_length: FileLength::Exact(12 * MIB), ..Spec::empty(8 * MIB) }
                .build(),
            &["L1 note file @0x400000"],
        ),
        row(
            "a fixed image with blocks of zeros, whose rest is zero",
            Spec {
                leave_blocks_allocated: true,
                file_length: FileLength::Exact(12 * MIB),
                raw_bat: (0..8).map(|block| (block, 2)).collect(),
                ..Spec::empty(8 * MIB)
            }
            .build(),
            &["L1 note file @0x400000"],
        ),
        row(
            "a fixed image with holes, after which something was appended",
            fixed(|spec| {
                spec.blocks.remove(&7);
                spec.file_length = FileLength::Trailing(1400);
            }),
            &["L2 leak file @0xb00000"],
        ),
        row("a new image", Spec::empty(8 * MIB).build(), &[]),
        row(
            "something at the end",
            with(|spec| spec.file_length = FileLength::Trailing(100)),
            &["L2 leak file @0x700000"],
        ),
        row(
            "some zeros at the end",
            with(|spec| spec.file_length = FileLength::Exact(7 * MIB + 512)),
            &["L2 note file @0x700000"],
        ),
        row(
            "a MiB of zeros before one with something in it",
            {
                let mut image = with(|spec| spec.file_length = FileLength::Exact(9 * MIB));
                image.bytes.write(8 * MIB + 5, b"x");
                image
            },
            &["L1 note file @0x700000", "L1 leak file @0x800000"],
        ),
        row(
            "a file that ends with the disk, within its last block",
            Spec {
                disk_size: 7 * MIB + 512 * KIB,
                file_length: FileLength::Short,
                ..Spec::default().block(7, Block::full())
            }
            .build(),
            &[],
        ),
        row(
            "a MiB of zeros at the end",
            with(|spec| spec.file_length = FileLength::Exact(8 * MIB)),
            &["L1 note file @0x700000"],
        ),
        of_child(
            "an entry for a block that the disk does not have",
            None,
            |image| {
                image.set_bat(4095, 2);
                0
            },
            &["N1 note BAT @0x307ff8"],
        ),
        row(
            "after the entries",
            patched(|image| image.bytes.write(3 * MIB + 900 * KIB, b"x")),
            &["N1 note BAT @0x3e1000"],
        ),
        of_child(
            "all bits",
            Some(0..2048),
            |image| image.bitmap_at(0) | 6,
            &["N6 note sector bitmap block 0 @0x500100 [0x100000+0x100000]"],
        ),
        of_child(
            "no bits",
            Some(0..0),
            |image| image.bitmap_at(0) | 6,
            &["N6 note sector bitmap block 0 @0x500100 [0x100000+0x100000]"],
        ),
        of_child("in order", Some(0..8), |image| image.bitmap_at(0) | 6, &[]),
        of_child(
            "bits of a block that is not there",
            Some(0..8),
            |image| {
                image.bytes.write(image.bitmap_at(0) + 3 * 256, &[1]);
                image.bitmap_at(0) | 6
            },
            &["N6 note sector bitmap block 0 @0x500300 [0x300000+0x100000]"],
        ),
        of_full_block(
            "a full block with some bits",
            &[1],
            &["N6 note sector bitmap block 0 @0x500100 [0x100000+0x100000]"],
        ),
        of_full_block("a full block with all bits", &[0xff; 256], &[]),
        of_full_block("a full block with no bits", &[], &[]),
        of_second_chunk("in order, in the second chunk", 0..8, &[]),
        of_second_chunk(
            "no bits, in the second chunk",
            0..0,
            &["N6 note sector bitmap block 1 @0x2402000 [0x102000000+0x2000000]"],
        ),
        zeros,
    ]
}

/// A disk whose block 4096, or another, has its entry in the place of that of sector bitmap block 0. The block is the
/// last of three, at 6 MiB.
fn stray(block: u64, change: impl FnOnce(&mut Image)) -> Image {
    let spec = Spec::empty(5 * GIB);
    let spec = [0, if block == 4096 { 4095 } else { 4096 }, block]
        .into_iter()
        .fold(spec, |spec, b| spec.block(b, Block::full()));
    let spec = spec.block(4097, Block::full().at(7 * MIB));
    let order = [0, if block == 4096 { 4095 } else { 4096 }, block].map(Slot::Block).to_vec();
    let mut image = Spec { order, ..spec }.build();
    let index = image.geometry.block_index(block);
    image.set_bat(4096, image.bat(index));
    image.set_bat(index, 0);
    change(&mut image);
    image
}

/// A fixed image, all of whose blocks are present.
fn fixed(change: impl FnOnce(&mut Spec)) -> Image {
    let spec = Spec { leave_blocks_allocated: true, ..Spec::empty(8 * MIB) };
    let mut spec = (0..8).fold(spec, |spec, block| spec.block(block, Block::full()));
    change(&mut spec);
    spec.build()
}

/// An image whose entries all have this value, while its blocks are in the file.
fn forgotten(leave_blocks_allocated: bool, entry: u64) -> Image {
    fixed(|spec| {
        spec.leave_blocks_allocated = leave_blocks_allocated;
        spec.raw_bat = (0..8).map(|block| (block, entry)).collect();
    })
}

/// The default image with another BAT entry.
fn bat(block: u64, entry: u64) -> Image {
    with(|spec| spec.raw_bat = [(block, entry)].into())
}

/// A disk with one block more than the BAT can hold: the entries of 131041 blocks, with one bitmap entry after each
/// 4096 of them, use up its 131072 entries.
fn too_few_entries() -> Image {
    Spec { bat_length: Some(1 << 20), ..Spec::empty(131_042 * MIB) }.build()
}

/// A child of the default image with this BAT entry of its sector bitmap. If there are `sectors`, block 1 is partially
/// present at 4 MiB, and its bitmap follows.
fn of_child(
    what: &'static str,
    sectors: Option<std::ops::Range<u64>>,
    entry: impl FnOnce(&mut Image) -> u64,
    found: &[&'static str],
) -> Row {
    let base = Spec::default();
    let mut child = Spec::child_of(&base, "1.vhdx");
    if let Some(sectors) = sectors {
        child = child.block(1, Block::partial(&run(sectors)));
    }
    let mut child = child.build();
    let entry = entry(&mut child);
    child.set_bat(4096, entry);
    Row { chain: vec![child, base.build()], ..row(what, Spec::empty(0).build(), found) }
}

/// A child of the default image, in which block 1 is fully present, with these bytes in its sector bitmap.
fn of_full_block(what: &'static str, bits: &[u8], found: &[&'static str]) -> Row {
    let base = Spec::default();
    let mut child = Spec::child_of(&base, "1.vhdx").block(1, Block::full());
    child.bitmaps.insert(0, Bitmap { state: 6, place: Place::Auto, present: Vec::new() });
    let mut child = child.build();
    child.bytes.write(child.bitmap_at(0) + 256, bits);
    Row { chain: vec![child, base.build()], ..row(what, Spec::empty(0).build(), found) }
}

/// A child with 128 blocks of 32 MiB in each chunk, whose block 129 has these sectors. The block is at 4 MiB, and its
/// bitmap follows.
fn of_second_chunk(what: &'static str, sectors: std::ops::Range<u64>, found: &[&'static str]) -> Row {
    let base = Spec { block_size: 32 << 20, ..Spec::empty(8 * GIB) };
    let child = Spec::child_of(&base, "1.vhdx").block(129, Block::partial(&run(sectors))).build();
    Row { chain: vec![child, base.build()], ..row(what, Spec::empty(0).build(), found) }
}

#[test]
fn check_reports_each_rule_of_blocks() {
    try_all(&rows());
}
