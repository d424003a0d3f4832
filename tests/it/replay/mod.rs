//! A log in use is replayed in memory, refused, or ignored, as the caller decides; and the replay is that of the
//! format.

mod entries;

use uuid::Uuid;
use vhdx_mmap::{
    Category, Disk, EntryStatus, ErrorKind, LogPolicy, LogReport, LogReportEntry, LogState, OpenOptions,
    PayloadBlockState, Replay, Rule, Source, Strictness, Structure,
};

use crate::kit::builder::{Image, Spec};
use crate::kit::log::{Descriptor, Dirty, Entry, Journal, LOG_GUID, Old, worked_example};
use crate::kit::{Block, GIB, KIB, MIB, PAGE, oracle, pattern};
use crate::lab::{
    Expected, Rng, assert_reads, open_chain, open_chain_with, open_image, oracle as oracle_of, size, source, wide,
};
use crate::support::{map, temp_dir};

/// Returns the summary of the replay of an image.
fn replayed(image: &Image) -> Replay {
    match open_image(image).unwrap().log_state() {
        LogState::Replayed(replay) => replay.clone(),
        other => unreachable!("{other:?}"),
    }
}

fn report(image: &Image) -> Vec<LogReportEntry> {
    LogReport::read(source(image)).unwrap().entries().to_vec()
}

/// Returns ring offset and status of every entry.
fn statuses(image: &Image) -> Vec<(u64, EntryStatus)> {
    report(image).iter().map(|entry| (entry.offset, entry.status)).collect()
}

/// A dynamic disk, one with sectors of 4 KiB, one with large blocks.
fn bases() -> [Spec; 3] {
    let mut coarse = Spec::default().block(7, Block::full().bytes(b"short"));
    (coarse.sector_size, coarse.disk_size) = (4096, 8 * MIB - 4096);
    let mut large = Spec::empty(9 * MIB + 512).block(1, Block::full()).block(4, Block::zero());
    large.block_size = 2 << 20;
    [Spec::default(), coarse, large]
}

fn child_of(base: &Spec) -> Spec {
    let child = Spec::child_of(base, "base.vhdx");
    child.block(0, Block::partial(&[1..3, 60..200])).block(2, Block::zero()).block(4, Block::full())
}

#[test]
fn dirty_image_reads_like_clean_one() {
    for base in bases() {
        for dirty in Dirty::ALL {
            let image = dirty.build(&base);
            assert_reads(&[&image]);
            let expected = oracle_of(&[&image], oracle::LogPolicy::Replay).replayed(0);
            assert_eq!(replayed(&image).entries, wide(expected), "{dirty:?}");
            assert!(open_image(&image).unwrap().header().is_dirty());
        }
    }
}

#[test]
fn logs_of_child_and_parent_are_replayed() {
    for (number, base) in bases().iter().enumerate() {
        let clean = base.build();
        for dirty in Dirty::ALL {
            let child = dirty.build(&child_of(base));
            assert_reads(&[&child, &clean]);
            let other = Dirty::ALL[(number + 7) % Dirty::ALL.len()];
            assert_reads(&[&child, &other.build(base)]);
        }
    }
}

#[test]
fn dirty_log_is_refused_on_request() {
    let dirty = Dirty::ManyEntries.build(&Spec::default());
    let error = vhdx_mmap::Image::open(source(&dirty), LogPolicy::Refuse).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DirtyLog { log_guid } if *log_guid == LOG_GUID), "{error:?}");
    let said = (error.structure(), error.offset(), error.category());
    assert_eq!(said, (Structure::Log, Some(MIB), Category::DirtyLog));
}

#[test]
fn dirty_log_of_parent_is_refused_on_request() {
    let base = Spec::default();
    let (dirty, child) = (Dirty::OneEntry.build(&base), child_of(&base).build());
    let error = open_chain_with(&[&child, &dirty], LogPolicy::Refuse).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DirtyLog { .. }), "{error:?}");
    assert_eq!((error.layer(), error.category()), (1, Category::DirtyLog));
}

#[test]
fn clean_log_is_not_refused() {
    let image = Spec::default().build();
    let disk = open_chain_with(&[&image], LogPolicy::Refuse).unwrap();
    Expected::of(&[&image]).assert_read_from(&disk);
    assert_eq!(disk.image().log_state(), &LogState::Clean);
}

#[test]
fn ignored_log_is_not_replayed() {
    let mut read = 0;
    for dirty in Dirty::ALL {
        let image = dirty.build(&Spec::default());
        let opened = open_chain_with(&[&image], LogPolicy::Ignore);
        match oracle::Oracle::open(&[&image.bytes], oracle::LogPolicy::Ignore) {
            Err(_) => assert!(opened.is_err(), "{dirty:?} is damaged without its log"),
            Ok(oracle) => {
                let disk = opened.unwrap();
                assert_eq!(disk.image().log_state(), &LogState::Ignored);
                let mut found = vec![1; size(disk.size())];
                disk.read_at(&mut found, 0).unwrap();
                assert!(Ok(found) == oracle.read_all(), "{dirty:?}");
                read += 1;
            }
        }
    }
    assert!(read > 0);
}

#[test]
fn worked_example_is_replayed_from_its_tail() {
    let image = worked_example();
    assert_eq!(image.bytes.len(), 0x240_0000);
    let replay = replayed(&image);
    assert_eq!((replay.entries, replay.data_sectors, replay.zero_ranges, replay.growth), (2, 2, 0, 0));
    let numbers = (replay.first_sequence_number, replay.last_sequence_number);
    assert_eq!(numbers, (80_117_443_871_106_390, 80_117_443_871_106_391));
    let disk = open_chain(&[&image]).unwrap();
    Expected::of(&[&image]).assert_read_from(&disk);
    let mut sector = [0; 512];
    disk.read_at(&mut sector, 0).unwrap();
    assert_eq!(sector[510..], [0x55, 0xAA]);
    assert_eq!(disk.image().payload_block(0).unwrap().1, 0x40_0000);
}

#[test]
fn worked_example_is_zeros_without_its_log() {
    let disk = open_chain_with(&[&worked_example()], LogPolicy::Ignore).unwrap();
    let segments: Vec<_> = disk.segments(..).collect::<Result<_, _>>().unwrap();
    assert_eq!(segments, [vhdx_mmap::Segment::Zero(GIB)]);
}

#[test]
fn report_of_worked_example_is_its_table() {
    let found: Vec<_> = report(&worked_example())
        .into_iter()
        .map(|entry| {
            let content = entry.content.unwrap();
            assert_eq!(content.log_guid, Uuid::from_u128(0xe6fc743c_81ed_4fe8_bf54_698ed57ba0b8));
            let number = content.sequence_number - 80_117_443_871_106_000;
            let lengths = (content.flushed_file_offset, content.last_file_offset);
            (entry.offset, content.len, content.tail, number, content.descriptors, lengths, entry.status)
        })
        .collect();
    let (short, long) = (0x40_0000, 0x240_0000);
    let expected = [
        (0x0000, 0x1000, 0x0000, 387, 0, (short, short), EntryStatus::Stale),
        (0x1000, 0x2000, 0x1000, 388, 1, (short, short), EntryStatus::Stale),
        (0x3000, 0x2000, 0x1000, 389, 1, (short, short), EntryStatus::Stale),
        (0x5000, 0x2000, 0x1000, 390, 1, (short, long), EntryStatus::Active),
        (0x7000, 0x2000, 0x5000, 391, 1, (long, long), EntryStatus::Active),
    ];
    assert_eq!(found, expected);
}

#[test]
fn log_may_change_everything_after_headers() {
    let base = Spec::default();
    let spec = child_of(&base);
    let clean = base.build();
    let probe = spec.build();
    let page_of = |offset: u64| offset / PAGE * PAGE;
    let places = [
        ("both region tables", vec![192 * KIB, 256 * KIB]),
        ("the metadata table", vec![probe.spec.metadata_offset]),
        ("the metadata items", vec![probe.spec.metadata_offset + 64 * KIB]),
        ("the BAT", vec![page_of(probe.block_entry_at(0))]),
        ("a sector bitmap", vec![probe.bitmap_at(0)]),
        ("a payload block", vec![probe.block_at(4), probe.block_at(4) + 17 * PAGE]),
        ("a partially present block", vec![page_of(probe.block_at(0) + 60 * 512)]),
    ];
    for (what, pages) in places {
        for old in [Old::Zero, Old::Junk(77)] {
            let mut image = spec.build();
            image.log_only(&pages, old);
            assert_eq!(replayed(&image).data_sectors, wide(pages.len()), "{what}");
            assert_reads(&[&image, &clean]);
        }
    }
}

#[test]
fn changes_in_any_order_equal_writes_to_file() {
    // The changes go to a payload block, which then shows them.
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut image = Spec::empty(MIB).block(0, Block::full()).build();
        let at = image.block_at(0);
        let mut expected = pattern(1, 0, size(MIB));
        let mut journal = Journal::new(u32::try_from(rng.below(256) * PAGE).unwrap(), 1 + rng.below(1 << 40));
        for _ in 0..=rng.below(6) {
            let mut changes = Vec::new();
            for _ in 0..rng.below(20) {
                let page = rng.below(24) * PAGE;
                if rng.one_in(2) {
                    let new = pattern(rng.next(), page, size(PAGE));
                    expected[size(page)..size(page + PAGE)].copy_from_slice(&new);
                    changes.push(Descriptor::Data(at + page, new));
                } else {
                    let length = rng.below(12) * PAGE;
                    expected[size(page)..size(page + length)].fill(0);
                    changes.push(Descriptor::Zero(at + page, length));
                }
            }
            journal.append(&mut image, &changes);
        }
        image.set_log_guid(LOG_GUID);
        let mut found = vec![1; size(MIB)];
        open_chain(&[&image]).unwrap().read_at(&mut found, 0).unwrap();
        assert!(found == expected, "seed {seed}");
    }
}

#[test]
fn replay_extends_file_to_last_file_offset() {
    let mut image = Spec::default().build();
    let before = image.bytes.len();
    let mut journal = Journal::new(0, 10);
    (journal.flushed, journal.last) = (MIB, 900 * MIB);
    journal.append(&mut image, &[]);
    (journal.flushed, journal.last) = (before, before + 5 * MIB);
    journal.append(&mut image, &[]);
    image.set_log_guid(LOG_GUID);
    assert_eq!(replayed(&image).growth, 5 * MIB);
    assert_eq!(open_image(&image).unwrap().file_len(), before + 5 * MIB);
    assert_reads(&[&image]);
}

#[test]
fn replay_never_truncates_file() {
    let mut image = Spec::default().build();
    let before = image.bytes.len();
    Journal::new(0, 10).append(&mut image, &[]);
    image.set_log_guid(LOG_GUID);
    // Its entry has 1 MiB.
    assert_eq!((replayed(&image).growth, open_image(&image).unwrap().file_len()), (0, before));
    assert_reads(&[&image]);
}

#[test]
fn change_past_end_extends_file() {
    let mut image = Spec::default().build();
    let before = image.bytes.len();
    Journal::new(0, 10).append(&mut image, &[Descriptor::Data(before + 8 * PAGE, vec![1; size(PAGE)])]);
    image.set_log_guid(LOG_GUID);
    assert_eq!(replayed(&image).growth, 9 * PAGE);
    assert_reads(&[&image]);
}

#[test]
fn file_shorter_than_flushed_length_is_rejected() {
    let mut image = Spec::default().build();
    let found = image.bytes.len();
    let mut journal = Journal::new(3 * 4096, 10);
    // The lengths in earlier entries do not count.
    journal.flushed = 900 * MIB;
    journal.append(&mut image, &[]);
    journal.flushed = found;
    journal.append(&mut image, &[]);
    image.set_log_guid(LOG_GUID);
    assert_reads(&[&image]);

    journal.flushed = found + MIB;
    let at = journal.append(&mut image, &[]);
    let error = open_image(&image).unwrap_err();
    let expected = found + MIB;
    let is_it = match error.kind() {
        ErrorKind::FileTooShort { found: length, expected: known } => (*length, *known) == (found, expected),
        _ => false,
    };
    assert!(is_it, "{error:?}");
    let said = (error.structure(), error.offset(), error.category());
    assert_eq!(said, (Structure::LogEntry, Some(MIB + u64::from(at)), Category::Corrupt));
    // The sequence is the active one nevertheless, and replayed by a salvage.
    let found = statuses(&image);
    assert!(found.iter().all(|(_, status)| *status == EntryStatus::Active), "{found:?}");
    let report = LogReport::read(source(&image)).unwrap();
    assert!(matches!(report.replay_error().unwrap().kind(), ErrorKind::FileTooShort { .. }), "{report:?}");
}

#[test]
fn entries_of_other_log_are_reported_not_replayed() {
    let image = Dirty::ForeignGuid.build(&Spec::default());
    assert_reads(&[&image]);
    let found = statuses(&image);
    let others = found.iter().filter(|(_, status)| *status == EntryStatus::OtherLog).count();
    let active: Vec<_> = found.iter().filter(|(_, status)| *status == EntryStatus::Active).collect();
    assert_eq!((others, active), (2, vec![&(16 * PAGE, EntryStatus::Active)]));
}

#[test]
fn unused_log_is_not_read() {
    let mut image = Spec::default().build();
    Journal::new(0, 7).append(&mut image, &[Descriptor::Zero(2 * MIB, MIB)]);
    let opened = open_image(&image).unwrap();
    assert_eq!(opened.log_state(), &LogState::Clean);
    assert!(opened.warnings().is_empty());
    assert_reads(&[&image]);
    assert_eq!(statuses(&image), [(0, EntryStatus::OtherLog)]);
}

#[test]
fn huge_zero_ranges_are_free() {
    let mut image = Spec::default().build();
    let end = image.bytes.len();
    Journal::new(0, 7).append(&mut image, &[Descriptor::Zero(end, (u64::MAX - end) / PAGE * PAGE)]);
    image.set_log_guid(LOG_GUID);
    assert_reads(&[&image]);
    assert_eq!(open_image(&image).unwrap().file_len(), u64::MAX / PAGE * PAGE);
}

#[test]
fn zeros_over_everything_after_metadata_leave_empty_disk() {
    let mut image = Spec::default().build();
    Journal::new(0, 7).append(&mut image, &[Descriptor::Zero(3 * MIB, 1 << 62)]);
    image.set_log_guid(LOG_GUID);
    let disk = open_chain(&[&image]).unwrap();
    let segments: Vec<_> = disk.segments(..).collect::<Result<_, _>>().unwrap();
    assert_eq!(segments, [vhdx_mmap::Segment::Zero(8 * MIB)]);
    let oracle = oracle_of(&[&image], oracle::LogPolicy::Replay);
    assert_eq!(oracle.read_all(), Ok(vec![0; size(8 * MIB)]));
}

#[test]
fn sparse_log_of_one_gibibyte_is_replayed() {
    let mut spec = Spec::default();
    (spec.log_offset, spec.log_length) = (16 * MIB, 1 << 30);
    let mut image = spec.build();
    let pages = image.structure_pages();
    let changes = image.unapply(&pages, Old::Junk(3));
    // The last entry wraps.
    let mut journal = Journal::new((1 << 30) - 2 * 4096, 1 << 40);
    journal.append(&mut image, &[]);
    journal.append(&mut image, &changes);
    image.put_entry(1 << 29, &Journal::new(1 << 29, 5).entry(&[Descriptor::Zero(2 * MIB, MIB)]));
    image.set_log_guid(LOG_GUID);
    let folder = temp_dir();
    let path = folder.path().join("long.vhdx");
    image.bytes.write_file(&path).unwrap();
    let disk = vhdx_mmap::Disk::open(map(&path), &vhdx_mmap::OpenOptions::new()).unwrap();
    Expected::of(&[&image]).assert_read_from(&disk);
    let found: Vec<_> =
        LogReport::read(map(&path)).unwrap().entries().iter().map(|entry| (entry.offset, entry.status)).collect();
    let active = EntryStatus::Active;
    assert_eq!(found, [(1 << 29, EntryStatus::Stale), (0x3FFF_E000, active), (0x3FFF_F000, active)]);
}

#[test]
fn report_needs_only_headers() {
    let image = Dirty::OneEntry.build(&Spec::default());
    let mut bytes = image.bytes.to_vec();
    bytes[size(192 * KIB)..size(MIB)].fill(0xEE);
    let report = LogReport::read(Source::from_vec(bytes)).unwrap();
    assert!(report.placement_error().is_none());
    assert_eq!(report.header().log_guid, LOG_GUID);
    assert_eq!(report.entries().len(), 1);
}

#[test]
fn log_outside_file_has_no_report() {
    let mut image = Spec::default().build();
    image.patch_headers(72, &(1_u64 << 40).to_le_bytes());
    let report = LogReport::read(source(&image)).unwrap();
    assert!(report.entries().is_empty());
    let error = report.placement_error().unwrap();
    assert!(matches!(error.kind(), ErrorKind::OutOfBounds { length: 0x10_0000, .. }), "{error:?}");
    assert_eq!((error.structure(), error.offset()), (Structure::Log, Some(1 << 40)));
}

#[test]
fn unaligned_file_lengths_in_log_are_reported() {
    let mut image = Spec::default().build();
    let mut journal = Journal::new(8192, 7);
    (journal.flushed, journal.last) = (MIB + 4096, MIB + 512);
    journal.append(&mut image, &[]);
    image.set_log_guid(LOG_GUID);
    let opened = open_image(&image).unwrap();
    let found: Vec<_> = opened.warnings().iter().map(|warning| (warning.rule, warning.detail.offset())).collect();
    assert_eq!(found, [(Rule::LogFileOffsets, Some(MIB + 8192)), (Rule::LogFileOffsets, Some(MIB + 8192))]);
}

#[test]
fn lost_block_of_truncated_file_is_reported_with_file_end() {
    // The file ends at 7 MiB, the log requires 9 MiB, and block 3 is at 8 MiB.
    let mut image = Spec { raw_bat: [(3, (8 * MIB) | 6)].into(), ..Spec::default() }.build();
    assert_eq!(image.bytes.len(), 7 * MIB);
    image.put_entry(0, &Entry { flushed: 9 * MIB, last: 9 * MIB, ..Entry::new(LOG_GUID, 1, 0) });
    image.set_log_guid(LOG_GUID);
    let options = OpenOptions::new().strictness(Strictness::Salvage);
    let disk = Disk::open(source(&image), &options).unwrap();
    let losses: Vec<_> = disk.losses(..).map(|loss| (loss.range, loss.reason)).collect();
    let [(range, reason)] = &losses[..] else { panic!("{losses:?}") };
    assert_eq!(*range, 3 * MIB..4 * MIB);
    assert_eq!(reason.offset(), Some(8 * MIB));
    assert!(matches!(reason.kind(), ErrorKind::OutOfBounds { limit, .. } if *limit == 7 * MIB), "{reason:?}");
}

#[test]
fn replay_that_clears_table_page_clears_only_its_entries() {
    // Entries of 512 blocks in each page; in the file, all blocks of the second page are present.
    let mut image = Spec::empty(2 * GIB).block(0, Block::full()).block(1100, Block::full()).build();
    let page = image.bat_entry_at(512);
    for number in 512..1024 {
        image.set_bat(number, image.block_at(0) | 6);
    }
    image.put_entry(0, &Entry::new(LOG_GUID, 1, 0).zero(page, PAGE));
    image.set_log_guid(LOG_GUID);
    Expected::of(&[&image]).assert_read_from(&open_chain(&[&image]).unwrap());
    let opened = open_image(&image).unwrap();
    let states = opened.block_states().unwrap();
    assert_eq!(states.count(PayloadBlockState::FullyPresent), 2);
    assert_eq!(states.count(PayloadBlockState::NotPresent), 2046);
}

#[test]
fn replay_may_change_page_before_log() {
    // The last page of block 0 ends at the begin of the log.
    let spec = Spec { log_offset: 16 * MIB, ..Spec::default() };
    let mut image = spec.block(0, Block::full().at(15 * MIB)).build();
    let page = 16 * MIB - PAGE;
    let content = image.bytes.read(page, size(PAGE));
    image.bytes.write(page, &pattern(9, page, size(PAGE)));
    image.put_entry(0, &Entry::new(LOG_GUID, 1, 0).data(page, &content));
    image.set_log_guid(LOG_GUID);
    assert_reads(&[&image]);
}

#[test]
fn entry_at_end_of_file_continues_in_replayed_growth() {
    // The file ends after four bytes of the entry of block 1; the log extends it with zeros.
    let mut image = Spec { raw_bat: [(1, (5 * MIB) | 6)].into(), ..Spec::empty(8 * MIB) }.build();
    image.bytes.truncate(3 * MIB + 12);
    image.put_entry(0, &Entry { flushed: 3 * MIB, last: 8 * MIB, ..Entry::new(LOG_GUID, 1, 0) });
    image.set_log_guid(LOG_GUID);
    let opened = open_image(&image).unwrap();
    let states = opened.block_states().unwrap();
    assert_eq!(states.count(PayloadBlockState::FullyPresent), 1);
    assert_eq!(states.count(PayloadBlockState::NotPresent), 7);
    let disk = open_chain(&[&image]).unwrap();
    let places: Vec<_> = disk.extents(..).map(|extent| extent.map(|extent| (extent.start, extent.state))).collect();
    let states = places.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    let (absent, full) = (Some(PayloadBlockState::NotPresent), Some(PayloadBlockState::FullyPresent));
    assert_eq!(states, [(0, absent), (MIB, full), (2 * MIB, absent)]);
}

#[test]
fn extents_separate_replayed_zeros_from_file_data() {
    // Block 0 is at 4 MiB, and the log clears its 16th page.
    let mut image = Spec::empty(MIB).block(0, Block::full()).build();
    image.put_entry(0, &Entry::new(LOG_GUID, 1, 0).zero(4 * MIB + 15 * PAGE, PAGE));
    image.set_log_guid(LOG_GUID);
    let disk = open_chain(&[&image]).unwrap();
    let extents = disk.extents(..).map(|extent| extent.map(|extent| (extent.start, extent.len, extent.file_offset())));
    let extents = extents.collect::<Result<Vec<_>, _>>().unwrap();
    let (before, after) = (4 * MIB, 4 * MIB + 16 * PAGE);
    let expected = [(0, 15 * PAGE, Some(before)), (15 * PAGE, PAGE, None), (16 * PAGE, MIB - 16 * PAGE, Some(after))];
    assert_eq!(extents, expected);
}
