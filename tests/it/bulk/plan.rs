//! Plans: splits cover a disk once, are opened from their JSON alone, and merged results equal those of one run.

use std::fs::File;
use std::io::{Cursor, Write};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;
use vhdx_mmap::ops::manifest::{self, Merged, Shard};
use vhdx_mmap::ops::plan::{Plan, PlanOptions, Share, Split};
use vhdx_mmap::ops::{self, Algorithm, CheckOptions, ExtractOptions, Target, TargetContent};
use vhdx_mmap::report::{self, Check, Diff, DiffEnd, DiffEntry, DiffMode, DiffStart};
use vhdx_mmap::{
    Category, Disk, ErrorKind, Input as Of, LogPolicy, OpenOptions, Parents, ScanError, ScanOptions, Source,
};

use crate::agree::{cases, chain_plan};
use crate::kit::builder::{Image, Spec};
use crate::kit::log::{Dirty, worked_example};
use crate::kit::{Block, Fill, MIB};
use crate::lab::{Rng, open_chain, parents_of, size, source, wide};
use crate::support::temp_dir;

use super::hash::{plain, some_algorithms, texts};
use super::{Case, pool};

/// A plan with these boundaries between its splits, as any program may write one.
fn plan_with(disk: &Disk, boundaries: &[u64], overlap: u64) -> Plan {
    let plan = Plan::new(disk, &PlanOptions::splits(1).overlap(overlap)).unwrap();
    let mut json = serde_json::to_value(&plan).unwrap();
    let places: Vec<u64> = [&[0], boundaries, &[disk.size()]].concat();
    let split = |(index, pair): (usize, &[u64])| {
        let length = pair[1] - pair[0];
        serde_json::json!({ "index": index + 1, "offset": pair[0], "length": length, "data-bytes": 0 })
    };
    json["splits"] = places.windows(2).enumerate().map(split).collect();
    serde_json::from_value(json).unwrap()
}

/// A division of a disk: as the library makes it, or with any boundaries.
fn some_plan(disk: &Disk, rng: &mut Rng) -> Plan {
    if rng.one_in(2) {
        let count = rng.pick(&[1, 2, 3, 5, 9]);
        return Plan::new(disk, &PlanOptions::splits(count).overlap(rng.below(5000))).unwrap();
    }
    let blocks = disk.size().div_ceil(disk.block_size());
    let mut boundaries: Vec<u64> =
        (0..rng.below(6)).map(|_| (rng.below(blocks + 1) * disk.block_size()).min(disk.size())).collect();
    boundaries.sort_unstable();
    plan_with(disk, &boundaries, 0)
}

/// The splits of a plan, each by way of its JSON, in any order.
fn splits_of(plan: &Plan, rng: &mut Rng) -> Vec<Split> {
    let plan: Plan = serde_json::from_str(&serde_json::to_string(plan).unwrap()).unwrap();
    let through_json = |split: Split| serde_json::from_str(&serde_json::to_string(&split).unwrap()).unwrap();
    let mut splits: Vec<Split> = plan.splits().map(through_json).collect();
    rng.shuffle(&mut splits);
    splits
}

pub(super) fn agrees(case: &Case, rng: &mut Rng) {
    let disk = &case.disk;
    let plan = some_plan(disk, rng);
    let splits = splits_of(&plan, rng);
    covers(disk, &plan);
    digests(case, &splits, rng);
    extracts(case, &splits);
    for ancestor in 1..disk.layers().len() {
        changes(disk, ancestor, &splits);
    }
    checks(&case.chain(), &splits);
    for split in &splits {
        in_file_order(disk, split);
    }
}

/// Checks that the splits cover the disk, and that their overlaps end in it.
fn covers(disk: &Disk, plan: &Plan) {
    let mut position = 0;
    for split in plan.splits() {
        let Range { start, end } = split.range();
        assert_eq!(start, position);
        assert!(start.is_multiple_of(disk.block_size()) || start == disk.size());
        assert!(split.search_range().start == start && (end..=disk.size()).contains(&split.search_range().end));
        position = end;
    }
    assert_eq!(position, disk.size());
}

/// Merges the digests and the manifests of splits.
fn digests(case: &Case, splits: &[Split], rng: &mut Rng) {
    let (disk, scan) = (&case.disk, ScanOptions::new());
    let bytes = case.content.read(0..disk.size());
    let algorithms = [Algorithm::Blake3, Algorithm::Crc32];
    let parts: Vec<Cursor<Vec<u8>>> = splits
        .iter()
        .map(|split| {
            let mut out = Vec::new();
            let hash = || manifest::hash_share(disk, &algorithms, &split.share(), Value::Null, &scan, &mut out);
            pool(rng).install(hash).unwrap();
            Cursor::new(out)
        })
        .collect();
    let merged = manifest::merge(parts, &mut Vec::new()).unwrap();
    let Merged::Digests { digests, .. } = merged else { unreachable!("shards of digests make digests") };
    let expected: Vec<_> = algorithms.iter().map(|algorithm| (*algorithm, plain(*algorithm, &bytes))).collect();
    assert_eq!(texts(&digests), expected);

    let algorithms = some_algorithms(rng);
    let create = |share: Option<Share>| {
        let mut out = Vec::new();
        manifest::create_manifest_of(disk, &algorithms, share.as_ref(), &scan, &mut out).unwrap();
        out
    };
    let parts = splits.iter().map(|split| Cursor::new(create(Some(split.share())))).collect();
    let mut merged = Vec::new();
    manifest::merge(parts, &mut merged).unwrap();
    assert_eq!(String::from_utf8(merged), String::from_utf8(create(None)));
}

/// Writes the splits into one file that holds other bytes.
fn extracts(case: &Case, splits: &[Split]) {
    let mut file = tempfile::tempfile().unwrap();
    let after = 5000;
    file.write_all(&vec![0xa5; size(case.disk.size()) + after]).unwrap();
    let mut written = 0;
    for split in splits {
        let target = Target::new(&file, TargetContent::Anything).at(split.range().start);
        let done = ops::extract_to_file(split.input(&case.disk), &target, &ExtractOptions::new()).unwrap();
        written += done.data + done.zero;
    }
    assert_eq!(written, case.disk.size());
    let mapped = Source::from_vec(read_all(&file));
    assert_eq!(mapped.len(), case.disk.size() + wide(after), "the file has its length");
    let disk_part = Of::raw(&mapped).range(..case.disk.size());
    assert_eq!(ops::first_difference(Of::disk(&case.disk), disk_part, &ScanOptions::new()).unwrap(), None);
    case.content.assert_read_from(&case.disk);
}

fn read_all(file: &File) -> Vec<u8> {
    use std::os::unix::fs::FileExt;

    let mut bytes = vec![0; size(file.metadata().unwrap().len())];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The report of the changes in a range.
fn diff(disk: &Disk, ancestor: usize, mode: DiffMode, share: Option<&Split>) -> Diff {
    let range = share.map_or(0..disk.size(), Split::range);
    let (mut list, mut end) = (Vec::new(), DiffEnd::default());
    let on_change = |change: ops::Change| {
        assert!(range.start <= change.range.start && change.range.end <= range.end);
        list.push(DiffEntry::of(&change));
        end.add(&change);
        ControlFlow::Continue(())
    };
    match mode {
        DiffMode::Allocated => ops::allocated_changes_in(disk, ancestor, range.clone(), on_change).unwrap(),
        _ => ops::content_changes_in(disk, ancestor, range.clone(), &ScanOptions::new(), on_change).unwrap(),
    }
    let start = DiffStart::of(disk, ancestor, mode);
    let start = share.iter().fold(start, |start, split| start.share(report::Share::of(disk, &split.share())));
    Diff::of(start, list, end)
}

fn changes(disk: &Disk, ancestor: usize, splits: &[Split]) {
    for mode in [DiffMode::Allocated, DiffMode::Content] {
        let shares = splits.iter().map(|split| diff(disk, ancestor, mode, Some(split))).collect();
        assert_eq!(Diff::merge(shares).unwrap(), diff(disk, ancestor, mode, None), "{mode:?}");
    }
}

/// The check of the content of a chain, or of a split of it.
fn check(chain: &[&Image], share: Option<Share>, strict: bool) -> Check {
    let options = CheckOptions::new(OpenOptions::new().parents(parents_of(chain))).payload(true);
    let options = share.into_iter().fold(options, CheckOptions::share);
    Check::of(&ops::check(source(chain[0]), &options).unwrap(), strict)
}

fn checks(chain: &[&Image], splits: &[Split]) {
    let strict = splits.len().is_multiple_of(2);
    let shares = splits.iter().map(|split| check(chain, Some(split.share()), strict)).collect();
    assert_eq!(Check::merge(shares).unwrap(), check(chain, None, strict));
}

/// Checks that the runs of a split are all of its runs, in the order of the files.
fn in_file_order(disk: &Disk, split: &Split) {
    let runs: Vec<_> = split.runs(disk).map(Result::unwrap).collect();
    let places: Vec<_> = runs.iter().map(|run| run.file_offset().map(|offset| (run.layer, offset))).collect();
    assert!(places.is_sorted());
    let mut in_disk_order = runs;
    in_disk_order.sort_by_key(|run| run.start);
    assert_eq!(in_disk_order, disk.runs(split.range()).map(Result::unwrap).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(cases(32))]

    /// Division is a matter of the map alone, and balanced as far as blocks allow.
    #[test]
    fn splits_have_about_the_same_amount_of_data(
        (large_sectors, same_size, plans) in chain_plan(),
        count in 1_u32..12,
        seed in any::<u64>(),
    ) {
        let case = super::case(large_sectors, same_size, &plans, &mut Rng::new(seed));
        let disk = &case.disk;
        let plan = Plan::new(disk, &PlanOptions::splits(count)).unwrap();
        prop_assert_eq!(plan.ranges().len(), size(u64::from(count)));
        let total: u64 = plan.ranges().iter().map(|range| range.data_bytes).sum();
        prop_assert_eq!(total, plan.data_bytes());
        prop_assert_eq!(total, ops::measure(disk, 0..disk.size()).unwrap().data);
        for (split, index) in plan.splits().zip(1..) {
            // One boundary on each side is moved down to a block.
            let even = total / u64::from(count);
            prop_assert!(split.data_bytes() <= even + disk.block_size() + 1, "{} of {total}", split.data_bytes());
            let shard = Shard::new(index, count).unwrap();
            prop_assert_eq!(Share::of(disk, shard).unwrap(), split.share());
            prop_assert_eq!(plan.split_of_shard(shard), Some(split));
        }
    }
}

#[test]
fn split_size_decides_the_number_of_splits() {
    let spec = (0..8).fold(Spec::empty(64 * MIB), |spec, block| spec.block(block * 8, Block::full()));
    let disk = open_chain(&[&spec.build()]).unwrap();
    let count = |size| Plan::new(&disk, &PlanOptions::split_size(size)).unwrap().ranges().len();
    assert_eq!([1, MIB, 2 * MIB, 3 * MIB, 8 * MIB, u64::MAX].map(count)[1..], [8, 4, 3, 1, 1]);
    // Splits of one byte would be too many: 8 MiB of data.
    assert_eq!(count(1), 1 << 20);
    let empty = open_chain(&[&Spec::empty(8 * MIB).build()]).unwrap();
    let plan = Plan::new(&empty, &PlanOptions::splits(4)).unwrap();
    assert!(plan.ranges().iter().all(|range| range.len == 2 * MIB), "what holds nothing is divided by length");
}

/// A base with a dirty log and a child, as files in a folder.
fn chain_in(folder: &Path) -> (PathBuf, PathBuf, Vec<u8>) {
    let base = Spec::empty(12 * MIB).block(1, Block::full()).block(5, Block::full()).block(11, Block::full());
    let dirty = Dirty::ALL[0].build(&base);
    let child = Spec::child_of(&base, "base.vhdx")
        .block(3, Block::partial(std::slice::from_ref(&(8..16))))
        .block(8, Block::full())
        .build();
    let (base_path, child_path) = (folder.join("base.vhdx"), folder.join("child.avhdx"));
    dirty.bytes.write_file(&base_path).unwrap();
    child.bytes.write_file(&child_path).unwrap();
    let content = crate::lab::Expected::of(&[&child, &dirty]).read(0..12 * MIB);
    (child_path, base_path, content)
}

fn open(path: &Path) -> Disk {
    Disk::open(Source::open(path).unwrap(), &OpenOptions::new().parents(Parents::Beside)).unwrap()
}

#[test]
fn split_is_opened_from_its_json_alone() {
    let folder = temp_dir();
    let (child, base, content) = chain_in(folder.path());
    let plan = Plan::new(&open(&child), &PlanOptions::splits(3)).unwrap();
    // Under its stored name, the parent cannot be found any more: it is not searched for.
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let moved = elsewhere.join("x");
    std::fs::rename(&base, &moved).unwrap();
    let missing = plan.split(1).unwrap().open().unwrap_err();
    assert!(matches!(missing.category(), Category::ParentNotFound | Category::Open), "{missing:?}");
    let json = serde_json::to_string(&plan).unwrap().replace(base.to_str().unwrap(), moved.to_str().unwrap());
    let plan: Plan = serde_json::from_str(&json).unwrap();
    for split in plan.splits() {
        let split: Split = serde_json::from_str(&serde_json::to_string(&split).unwrap()).unwrap();
        let disk = split.open().unwrap();
        let range = split.range();
        let mut bytes = vec![0; size(range.end - range.start)];
        disk.read_at(&mut bytes, range.start).unwrap();
        assert_eq!(bytes, content[size(range.start)..size(range.end)]);
    }
}

#[test]
fn split_refuses_changed_files() {
    let folder = temp_dir();
    let (child, base, _) = chain_in(folder.path());
    let split = Plan::new(&open(&child), &PlanOptions::splits(2)).unwrap().split(2).unwrap();
    let copies = Plan::new(&open(&child), &PlanOptions::splits(2).without_times()).unwrap().split(2).unwrap();
    let refused = |split: &Split| {
        let error = split.open().unwrap_err();
        let ErrorKind::OtherFiles { what } = error.kind() else { panic!("{error}") };
        (error.layer(), *what)
    };
    // Of another time.
    let bytes = std::fs::read(&base).unwrap();
    std::fs::write(&base, &bytes).unwrap();
    let later = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    File::options().write(true).open(&base).unwrap().set_modified(later).unwrap();
    assert_eq!(refused(&split), (1, "time of the last change"));
    copies.open().unwrap();
    // Of another length.
    std::fs::write(&base, [&bytes[..], &[0; 1 << 20]].concat()).unwrap();
    assert_eq!(refused(&copies), (1, "length"));
    // Another image of the same name.
    Spec::empty(12 * MIB).build().bytes.write_file(&child).unwrap();
    assert_eq!(refused(&copies), (0, "DataWriteGuid"));
}

#[test]
fn split_of_an_ignored_log_ignores_it() {
    let folder = temp_dir();
    let (image, base) = (worked_example(), folder.path().join("dirty.vhdx"));
    image.bytes.write_file(&base).unwrap();
    let ignored = OpenOptions::new().log_policy(LogPolicy::Ignore);
    let disk = Disk::open(Source::open(&base).unwrap(), &ignored).unwrap();
    let split = Plan::new(&disk, &PlanOptions::splits(1)).unwrap().split(1).unwrap();
    assert!(split.disk().log_ignored);
    assert_eq!(ops::measure(&split.open().unwrap(), 0..disk.size()).unwrap().data, 0, "the log has all of the data");
}

#[test]
fn contradictory_plans_are_rejected() {
    let disk = open_chain(&[&Spec::default().build()]).unwrap();
    let plan = serde_json::to_value(plan_with(&disk, &[2 * MIB, 4 * MIB, 6 * MIB], 0)).unwrap();
    let rejected = |change: &dyn Fn(&mut Value), words: &str| {
        let mut json = plan.clone();
        change(&mut json);
        let error = serde_json::from_value::<Plan>(json).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let offset = |json: &Value, split: usize| json["splits"][split]["offset"].as_u64().unwrap();
    rejected(&|json| json["splits"][1]["offset"] = (offset(json, 1) - MIB).into(), "split 2 overlaps");
    rejected(&|json| json["splits"][1]["offset"] = (offset(json, 1) + MIB).into(), "split 2 leaves a gap");
    rejected(&|json| json["splits"][1]["offset"] = 512.into(), "not a range of blocks");
    rejected(&|json| json["splits"][1]["length"] = u64::MAX.into(), "not a range of blocks");
    rejected(&|json| json["splits"][1]["index"] = 3.into(), "found split 3, expected 2");
    rejected(&|json| drop(json["splits"].as_array_mut().unwrap().pop()), "do not cover the disk");
    rejected(&|json| json["splits"] = Value::Array(Vec::new()), "do not cover the disk");
    rejected(&|json| json["layers"] = Value::Array(Vec::new()), "do not cover the disk");
    rejected(&|json| json["block-size"] = 0.into(), "not a range of blocks");

    let split = plan_with(&disk, &[2 * MIB, 4 * MIB, 6 * MIB], 0).split(2).unwrap();
    let split = serde_json::to_value(split).unwrap();
    for (key, value) in [("index", 5_u64), ("index", 0), ("count", 0), ("offset", 512), ("length", 1 << 40)] {
        let mut json = split.clone();
        json[key] = value.into();
        assert!(serde_json::from_value::<Split>(json).is_err(), "{key} {value}");
    }
}

#[test]
fn shares_that_cannot_be_merged_are_rejected() {
    // The share of a plan for blocks of 1 MiB, used with a disk whose blocks are larger.
    let small = open_chain(&[&Spec::default().build()]).unwrap();
    let mut spec = Spec::empty(8 * MIB);
    spec.block_size = 4 << 20;
    let large = open_chain(&[&spec.build()]).unwrap();
    let share = plan_with(&small, &[3 * MIB], 0).split(1).unwrap().share();
    let (scan, crc32) = (ScanOptions::new(), [Algorithm::Crc32]);
    let refused = manifest::create_manifest_of(&large, &crc32, Some(&share), &scan, &mut Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("share 1/2 cannot be merged"), "{refused}");
    let tiny = open_chain(&[&Spec::empty(MIB).build()]).unwrap();
    let refused = manifest::hash_share(&tiny, &crc32, &share, Value::Null, &scan, &mut Vec::new()).unwrap_err();
    assert!(matches!(refused, ScanError::Manifest(_)), "{refused}");
}

#[test]
fn merge_of_reports_rejects_what_is_not_all_of_one_work() {
    let (one, other) = (Spec::default(), Spec::empty(8 * MIB).block(2, Block::full()));
    let images = [one.build(), other.build()];
    let of = |image: &Image, index, count| {
        let share = Share::of(&open_chain(&[image]).unwrap(), Shard::new(index, count).unwrap()).unwrap();
        check(&[image], Some(share), false)
    };
    let rejected = |shares: Vec<Check>, document: usize, words: &str| {
        let error = Check::merge(shares).unwrap_err();
        assert_eq!(error.document, document, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let [a, b, c] = [1, 2, 3].map(|index| of(&images[0], index, 3));
    assert_eq!(Check::merge(vec![c.clone(), a.clone(), b.clone()]).unwrap(), check(&[&images[0]], None, false));
    rejected(vec![], 0, "nothing to merge");
    rejected(vec![a.clone(), c.clone()], 1, "share 2/3 is missing");
    rejected(vec![a.clone(), b.clone()], 0, "share 3/3 is missing");
    rejected(vec![a.clone(), b.clone(), b.clone(), c.clone()], 2, "share 2/3 occurs twice");
    rejected(vec![a.clone(), of(&images[0], 2, 2)], 1, "wrong share (found 2/2");
    rejected(vec![a.clone(), of(&images[1], 2, 3), c.clone()], 1, "another disk");
    rejected(vec![check(&[&images[0]], None, false)], 0, "not a result of a share");
    let mut moved = b.clone();
    moved.share.as_mut().unwrap().share.offset -= MIB;
    rejected(vec![a.clone(), moved, c.clone()], 1, "share 2/3 overlaps");
    let mut moved = c.clone();
    moved.share.as_mut().unwrap().share.offset += MIB;
    rejected(vec![a.clone(), b.clone(), moved], 2, "share 3/3 leaves a gap");
    let mut shorter = c;
    shorter.share.as_mut().unwrap().share.length -= MIB;
    rejected(vec![a, b, shorter], 0, "do not cover the disk");
}

#[test]
fn merged_check_counts_blocks_of_zeros_once() {
    let zeros = Block::full().fill(Fill::Pieces(Vec::new()));
    let spec = (0..8).fold(Spec::empty(8 * MIB), |spec, block| {
        spec.block(block, if block % 3 == 0 { Block::full() } else { zeros.clone() })
    });
    let image = spec.build();
    let disk = open_chain(&[&image]).unwrap();
    let shares = (1..=5).map(|index| Share::of(&disk, Shard::new(index, 5).unwrap()).unwrap());
    let merged = Check::merge(shares.map(|share| check(&[&image], Some(share), false)).collect()).unwrap();
    let about: Vec<_> = merged.findings.iter().filter(|finding| finding.message.contains('5')).collect();
    assert_eq!(about.len(), 1, "{:?}", merged.findings);
    assert_eq!(merged, check(&[&image], None, false));
}

/// Each match of a pattern is found once, wherever it lies.
#[test]
fn searches_find_each_match_once() {
    let pattern = b"needle in a haystack";
    let mut bytes = vec![0; 8 << 20];
    let places = [100, (2 << 20) - 7, 4 << 20, (5 << 20) - 1, (8 << 20) - pattern.len()];
    places.iter().for_each(|place| bytes[*place..*place + pattern.len()].copy_from_slice(pattern));
    let spec = (0..8).fold(Spec::empty(8 * MIB), |spec, block| {
        let start = size(block * MIB);
        spec.block(block, Block::full().fill(Fill::Pieces(vec![(0, bytes[start..start + (1 << 20)].to_vec())])))
    });
    let disk = open_chain(&[&spec.build()]).unwrap();
    for count in 1..=8 {
        let plan = Plan::new(&disk, &PlanOptions::splits(count).overlap(wide(pattern.len()) - 1)).unwrap();
        let mut found = Vec::new();
        for split in plan.splits() {
            let range = split.search_range();
            let mut read = vec![0; size(range.end - range.start)];
            disk.read_at(&mut read, range.start).unwrap();
            let matches = read.windows(pattern.len()).enumerate().filter(|(_, window)| window == pattern);
            let own = matches.map(|(place, _)| range.start + wide(place)).filter(|place| split.range().contains(place));
            found.extend(own);
        }
        assert_eq!(found, places.map(wide), "{count} splits");
    }
}
