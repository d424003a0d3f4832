//! Content and end of chains.

use std::path::PathBuf;

use vhdx_mmap::{Category, Chain, Disk, ErrorKind, LogPolicy, LogState, MAX_PARENTS, OpenOptions, Parents, Rule};

use crate::kit::builder::{Locator, Spec};
use crate::kit::log::{Dirty, Old};
use crate::kit::{Block, MIB, pattern};
use crate::support::{map, temp_dir};

use super::{assert_reads, base, chain, child_at, options, refused, write};

#[test]
fn child_without_parent_reads_only_own_blocks() {
    let folder = temp_dir();
    let spec = child_at(".\\base.vhdx").block(2, Block::partial(&[0..8, 16..24])).block(3, Block::zero());
    let path = write(folder.path(), "child.avhdx", &spec);
    write(folder.path(), "base.vhdx", &base());
    let disk = Disk::open(map(&path), &options(Parents::None)).unwrap();
    let read = |offset: u64, length: usize| {
        let mut bytes = vec![0xee; length];
        disk.read_at(&mut bytes, offset).map(|_| bytes)
    };
    assert!(read(MIB, 1 << 20).unwrap() == pattern(spec.seed, MIB, 1 << 20));
    assert!(read(2 * MIB, 4096).unwrap() == pattern(spec.seed, 2 * MIB, 4096));
    assert!(read(3 * MIB, 1 << 20).unwrap().iter().all(|byte| *byte == 0));
    for (offset, length) in [(0, 1), (MIB - 1, 2), (2 * MIB, 4097), (2 * MIB + 4096, 1), (2 * MIB + 4096 * 3, 512)] {
        let error = read(offset, length).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoParentAttached), "{offset}: {error}");
        assert_eq!((error.category(), error.layer()), (Category::ParentNotFound, 0));
    }
    let chain = chain(&path, Parents::None);
    assert!(chain.needs_parent() && chain.broken().is_none());
    assert_eq!(chain.layers().len(), 1);
    assert!(Disk::so_far(&chain).read_at(&mut [0], 0).is_err());
}

#[test]
fn broken_chain_reads_up_to_missing_layer() {
    let folder = temp_dir();
    let middle = Spec::child_of(&base(), "missing.vhdx").block(0, Block::full());
    write(folder.path(), "middle.avhdx", &middle);
    let top = Spec::child_of(&middle, "middle.avhdx").block(1, Block::full());
    let path = write(folder.path(), "top.avhdx", &top);
    let chain = chain(&path, Parents::Beside);
    assert_eq!((chain.layers().len(), chain.needs_parent()), (2, true));
    let broken = chain.broken().unwrap();
    assert_eq!((broken.category(), broken.layer()), (Category::ParentNotFound, 1));
    assert!(broken.file().unwrap().ends_with("middle.avhdx"));
    let mut bytes = vec![0; 2 << 20];
    Disk::so_far(&chain).read_at(&mut bytes, 0).unwrap();
    let (first, second) = bytes.split_at(1 << 20);
    assert!(first == pattern(middle.seed, 0, 1 << 20) && second == pattern(top.seed, MIB, 1 << 20));
    let error = Disk::so_far(&chain).read_at(&mut [0], 2 * MIB).unwrap_err();
    assert_eq!((error.category(), error.layer()), (Category::ParentNotFound, 1));
    assert_eq!(Disk::from_chain(&chain).unwrap_err().category(), Category::ParentNotFound);
}

#[test]
fn parent_size_may_differ() {
    let folder = temp_dir();
    for size in [MIB + 512, 3 * MIB, 9 * MIB] {
        let parent = Spec { disk_size: size, ..base() };
        write(folder.path(), "base.vhdx", &parent);
        let child = child_at(".\\base.vhdx");
        let path = write(folder.path(), "child.avhdx", &child);
        let disk = Disk::open(map(&path), &options(Parents::Beside)).unwrap();
        assert_eq!(disk.size(), 4 * MIB);
        assert_reads(&disk, &[&child, &parent]);
        let (layer, warning) = disk.warnings().find(|(_, warning)| warning.rule == Rule::ParentSize).unwrap();
        assert_eq!((layer, warning.rule.code()), (0, "V61"));
    }
}

#[test]
fn block_sizes_of_parent_and_child_may_differ() {
    let folder = temp_dir();
    let mut parent =
        Spec { block_size: 8 << 20, ..Spec::empty(40 * MIB) }.block(0, Block::full()).block(4, Block::full());
    let mut child = Spec::child_of(&parent, "base.vhdx");
    child.block_size = 1 << 20;
    child = child.block(0, Block::partial(&[1..2, 2047..2048])).block(3, Block::full()).block(33, Block::zero());
    write(folder.path(), "base.vhdx", &parent);
    let path = write(folder.path(), "child.avhdx", &child);
    assert_reads(&Disk::open(map(&path), &options(Parents::Beside)).unwrap(), &[&child, &parent]);

    (parent.block_size, child.block_size) = (1 << 20, 32 << 20);
    child.blocks.clear();
    child = child.block(1, Block::partial(&[0..3, 5000..9000]));
    write(folder.path(), "base.vhdx", &parent);
    write(folder.path(), "child.avhdx", &child);
    assert_reads(&Disk::open(map(&path), &options(Parents::Beside)).unwrap(), &[&child, &parent]);
}

#[test]
fn log_policy_applies_to_parents() {
    let folder = temp_dir();
    let child = child_at(".\\base.vhdx");
    let path = write(folder.path(), "child.avhdx", &child);
    let base_path = folder.path().join("base.vhdx");
    for dirty in [Dirty::OneEntry, Dirty::StaleBeforeTail] {
        dirty.build(&base()).bytes.write_file(&base_path).unwrap();
        let disk = Disk::open(map(&path), &options(Parents::Beside)).unwrap();
        assert_reads(&disk, &[&child, &base()]);
        assert!(matches!(disk.layers()[1].image().log_state(), LogState::Replayed(_)));
        assert!(matches!(disk.layers()[0].image().log_state(), LogState::Clean));
    }
    let mut image = base().build();
    image.log_only(&[image.block_entry_at(0) & !0xfff], Old::Zero);
    image.bytes.write_file(&base_path).unwrap();
    let refuse = OpenOptions::new().parents(Parents::Beside).log_policy(LogPolicy::Refuse);
    let error = Disk::open(map(&path), &refuse).unwrap_err();
    assert_eq!((error.category(), error.layer()), (Category::DirtyLog, 1));
    assert!(error.file().unwrap().ends_with("base.vhdx"));
    // Without a replay, the BAT is empty.
    let ignore = OpenOptions::new().parents(Parents::Beside).log_policy(LogPolicy::Ignore);
    let disk = Disk::open(map(&path), &ignore).unwrap();
    assert!(matches!(disk.layers()[1].image().log_state(), LogState::Ignored));
    assert_reads(&disk, &[&child, &Spec::empty(4 * MIB)]);
}

#[test]
fn circle_of_parents_is_an_error() {
    let folder = temp_dir();
    let at = |name: &str| folder.path().join(name);
    // The parent of itself.
    let mut own = child_at(".\\own.avhdx");
    own.locator = Some(Locator::linked_to(own.data_write_guid, "own.avhdx"));
    let path = write(folder.path(), "own.avhdx", &own);
    let error = refused(&path, Parents::Beside);
    assert!(matches!(error.kind(), ErrorKind::ChainCycle), "{error}");
    assert_eq!(error.layer(), 0);
    // The same file by another name is the same file.
    own.locator = Some(Locator::linked_to(own.data_write_guid, "other.avhdx"));
    write(folder.path(), "own.avhdx", &own);
    std::fs::hard_link(at("own.avhdx"), at("other.avhdx")).unwrap();
    assert!(matches!(refused(&path, Parents::Beside).kind(), ErrorKind::ChainCycle));
    // Two of each other, and three in a circle.
    for count in [2, 3] {
        let name = |number: usize| format!("{}.avhdx", number % count);
        let mut specs: Vec<Spec> = (0..count).map(|_| child_at("nothing")).collect();
        for (number, spec) in specs.iter_mut().enumerate() {
            spec.data_write_guid = uuid::Uuid::from_u128(u128::try_from(number).unwrap() + 1);
        }
        let guids: Vec<_> = specs.iter().map(|spec| spec.data_write_guid).collect();
        for (number, spec) in specs.iter_mut().enumerate() {
            spec.locator = Some(Locator::linked_to(guids[(number + 1) % count], &name(number + 1)));
            write(folder.path(), &name(number), spec);
        }
        let error = refused(&at("0.avhdx"), Parents::Beside);
        assert!(matches!(error.kind(), ErrorKind::ChainCycle), "{error}");
        assert_eq!((error.category(), error.layer()), (Category::Corrupt, count - 1));
        assert_eq!(chain(&at("0.avhdx"), Parents::Beside).layers().len(), count);
        // If the caller names a file that is part of the chain, it is not tried again.
        let given = Parents::Explicit((0..count).map(|number| at(&name(number))).collect());
        let error = refused(&at("0.avhdx"), given);
        assert!(matches!(error.category(), Category::Corrupt | Category::ParentNotFound), "{error}");
    }
}

/// A base with content under `parents` children, the last of which is returned.
fn deep(folder: &std::path::Path, parents: usize) -> PathBuf {
    let mut spec =
        Spec { data_write_guid: uuid::Uuid::from_u128(0x1000), ..Spec::empty(2 * MIB) }.block(1, Block::full());
    let mut path = write(folder, "0", &spec);
    for number in 1..=parents {
        spec = Spec::child_of(&spec, &(number - 1).to_string());
        path = write(folder, &number.to_string(), &spec);
    }
    path
}

#[test]
fn number_of_parents_is_limited() {
    assert_eq!(MAX_PARENTS, 256);
    let folder = temp_dir();
    let one_more = deep(folder.path(), 257);
    let error = refused(&one_more, Parents::Beside);
    assert!(matches!(error.kind(), ErrorKind::ChainTooLong { limit: 256 }), "{error}");
    assert_eq!((error.category(), error.layer()), (Category::Unsupported, 256));
    assert_eq!(chain(&one_more, Parents::Beside).layers().len(), 257);

    let most = folder.path().join("256");
    let whole = Chain::open(map(&most), &options(Parents::Beside)).unwrap();
    assert!(whole.broken().is_none() && !whole.needs_parent());
    let disk = Disk::from_chain(&whole).unwrap();
    assert_eq!(disk.layers().len(), 257);
    let mut bytes = vec![0; 2 << 20];
    disk.read_at(&mut bytes, 0).unwrap();
    let (zeros, content) = bytes.split_at(1 << 20);
    assert!(zeros.iter().all(|byte| *byte == 0) && content == pattern(1, MIB, 1 << 20));
    let last = disk.extents(MIB..).next().unwrap().unwrap();
    assert_eq!((last.layer, last.len), (256, MIB));
}
