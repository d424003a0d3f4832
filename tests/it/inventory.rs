//! Many images at once: which files count, how they depend on each other, and that no walk leaves its folder.
#![cfg(all(feature = "mmap", feature = "ops", unix))]

use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use uuid::Uuid;
use vhdx_mmap::ops::inventory::{
    Checkpoints, Forest, ForestImage, ForestLeaf, ForestParent, Health, ImageFiles, InventoryOptions, InventoryRow,
    Listing, ParentStatus, Siblings,
};
use vhdx_mmap::{Category, Image, LogPolicy, OpenOptions, Parents, Source};

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB};
use crate::support::temp_dir;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// An image with an identity; a child has that of its parent, too, and the name that it stores.
fn spec(own: u128, parent: Option<(u128, &str)>) -> Spec {
    let base = Spec { data_write_guid: id(parent.map_or(own, |(parent, _)| parent)), ..Spec::empty(4 * MIB) };
    match parent {
        None => base,
        Some((_, name)) => Spec { data_write_guid: id(own), ..Spec::child_of(&base, name) },
    }
}

fn write(path: PathBuf, spec: &Spec) -> PathBuf {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    spec.build().bytes.write_file(&path).unwrap();
    path
}

/// Sets the time of the last change, in seconds.
fn changed_at(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

fn checkpoints(path: &Path) -> Checkpoints {
    let image = Image::open(Source::open(path).unwrap(), LogPolicy::Replay).unwrap();
    Siblings::of(&image).unwrap().checkpoints(&image)
}

fn rows(paths: &[PathBuf], options: &InventoryOptions<'_>) -> Vec<InventoryRow> {
    let mut rows = Vec::new();
    let collect = |row| {
        rows.push(row);
        ControlFlow::Continue(())
    };
    Listing::of(paths).rows(options, collect).unwrap();
    rows
}

fn beside() -> InventoryOptions<'static> {
    InventoryOptions::new(OpenOptions::new().parents(Parents::Beside))
}

#[test]
fn image_files_are_those_with_the_name_or_the_signature() {
    let folder = temp_dir();
    let root = folder.path();
    write(root.join("b/disk.vhdx"), &spec(1, None));
    write(root.join("b/no extension"), &spec(2, None));
    write(root.join("a/other.AVHDX"), &spec(3, None));
    std::fs::write(root.join("a/page.vhdx"), "<html>").unwrap();
    std::fs::write(root.join("a/notes.txt"), "notes").unwrap();
    std::fs::write(root.join("big.bin"), vec![1; 2 << 20]).unwrap();
    let outside = temp_dir();
    let target = write(outside.path().join("disk.vhdx"), &spec(4, None));
    symlink(&target, root.join("link.vhdx")).unwrap();
    symlink(outside.path(), root.join("link")).unwrap();
    symlink(".", root.join("a/loop")).unwrap();
    symlink("../..", root.join("a/up")).unwrap();
    mknodat(CWD, root.join("pipe.vhdx"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();

    let mut files = ImageFiles::at(root).unwrap();
    let found: Vec<PathBuf> = files.by_ref().map(|file| file.unwrap().path().to_path_buf()).collect();
    let expected = ["a/other.AVHDX", "a/page.vhdx", "b/disk.vhdx", "b/no extension"].map(|name| root.join(name));
    assert_eq!(found, expected);
    assert_eq!(files.links(), 4);
    // A link that the caller names is followed: to a folder, and to a file.
    let found: Vec<PathBuf> =
        ImageFiles::at(root.join("link")).unwrap().map(|file| file.unwrap().path().to_path_buf()).collect();
    assert_eq!(found, [root.join("link/disk.vhdx")]);
    let file = ImageFiles::at(root.join("link.vhdx")).unwrap().next().unwrap().unwrap();
    assert_eq!(file.open().unwrap().path(), Some(&*root.join("link.vhdx")));
}

#[test]
fn file_replaced_by_a_link_is_not_opened() {
    let (folder, outside) = (temp_dir(), temp_dir());
    let path = write(folder.path().join("disk.vhdx"), &spec(1, None));
    let target = write(outside.path().join("disk.vhdx"), &spec(2, None));
    let file = ImageFiles::at(folder.path()).unwrap().next().unwrap().unwrap();
    file.open().unwrap();
    std::fs::remove_file(&path).unwrap();
    symlink(target, &path).unwrap();
    assert_eq!(file.open().unwrap_err().category(), Category::Open);
    std::fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    assert_eq!(file.open().unwrap_err().category(), Category::Open);
}

#[test]
fn deep_folders_are_an_error_and_the_walk_continues() {
    let folder = temp_dir();
    let mut deep = folder.path().join("deep");
    for _ in 0..70 {
        deep.push("d");
    }
    std::fs::create_dir_all(&deep).unwrap();
    write(folder.path().join("last.vhdx"), &spec(1, None));
    let found: Vec<_> = ImageFiles::at(folder.path()).unwrap().collect();
    assert_eq!(found.len(), 2);
    let error = found[0].as_ref().unwrap_err();
    assert!(error.file().unwrap().starts_with(folder.path()) && error.to_string().contains("64"), "{error}");
    assert_eq!(found[1].as_ref().unwrap().path(), folder.path().join("last.vhdx"));
}

#[test]
fn forest_links_images_by_identity() {
    let folder = temp_dir();
    let root = folder.path();
    let paths: Vec<PathBuf> = [
        // 0, 1, 2: a chain, whose names say something else.
        ("base.vhdx", spec(1, None)),
        ("b.avhdx", spec(2, Some((1, "gone.vhdx")))),
        ("c.avhdx", spec(3, Some((2, "base.vhdx")))),
        // 3: a branch.
        ("d.avhdx", spec(4, Some((2, "b.avhdx")))),
        // 4: made before the base was changed; 5: its child; 6: no parent at all.
        ("stale.avhdx", spec(5, Some((99, "base.vhdx")))),
        ("child of stale.avhdx", spec(6, Some((5, "stale.avhdx")))),
        ("orphan.avhdx", spec(7, Some((98, "missing.vhdx")))),
        // 7: a copy of the base, with a child that names it.
        ("copy/base.vhdx", spec(1, None)),
        ("copy/e.avhdx", spec(8, Some((1, "base.vhdx")))),
        // 9, 10: each other's parent.
        ("x.avhdx", spec(20, Some((21, "y.avhdx")))),
        ("y.avhdx", spec(21, Some((20, "x.avhdx")))),
        // 11: its own parent.
        ("self.avhdx", spec(30, Some((30, "self.avhdx")))),
    ]
    .into_iter()
    .map(|(name, spec)| write(root.join(name), &spec))
    .collect();
    changed_at(&paths[2], 2_000);
    changed_at(&paths[3], 1_000);
    let read = |path: &PathBuf| ForestImage::read(&Source::open(path).unwrap()).unwrap();
    let forest = Forest::new(paths.iter().map(read).collect());
    let images = forest.images();
    use ForestParent::{Cycle, Found, Missing, None as Base, Stale};
    let parents: Vec<ForestParent> = images.iter().map(|image| image.parent).collect();
    let expected = [
        Base,
        Found(0),
        Found(1),
        Found(1),
        Stale(0),
        Found(4),
        Missing,
        Base,
        Found(7),
        Cycle(10),
        Found(9),
        Cycle(11),
    ];
    assert_eq!(parents, expected);
    assert_eq!(images[0].children, [1]);
    assert_eq!((images[1].children.as_slice(), images[1].descendants), (&[2, 3][..], 2));
    assert_eq!((images[0].descendants, images[7].descendants, images[2].descendants), (3, 1, 0));
    assert_eq!(images[0].stale_children, [4]);
    assert_eq!((images[0].duplicate_of, images[7].duplicate_of), (None, Some(0)));
    let leaves: Vec<Option<ForestLeaf>> = images.iter().map(|image| image.leaf).collect();
    let mut expected = [None; 12];
    expected[2] = Some(ForestLeaf::Newest);
    expected[3] = Some(ForestLeaf::Branch);
    expected[8] = Some(ForestLeaf::Current);
    assert_eq!(leaves, expected);
    assert_eq!(forest.roots().collect::<Vec<_>>(), [0, 4, 6, 7, 9, 11]);
    assert_eq!(forest.tree(0), [(0, 0), (1, 1), (2, 2), (3, 2)]);
    assert_eq!(forest.tree(9), [(9, 0), (10, 1)]);
    // Every image is in exactly one tree.
    let mut all: Vec<usize> = forest.roots().flat_map(|root| forest.tree(root)).map(|(number, _)| number).collect();
    all.sort_unstable();
    assert_eq!(all, (0..12).collect::<Vec<_>>());
}

#[test]
fn nil_identity_links_nothing() {
    let folder = temp_dir();
    let base = write(folder.path().join("base.vhdx"), &spec(0, None));
    let child = write(folder.path().join("child.avhdx"), &spec(1, Some((0, "other.vhdx"))));
    let listing = Listing::of(&[folder.path().to_path_buf()]);
    assert_eq!(listing.forest().images()[1].parent, ForestParent::Missing, "{child:?}");
    assert!(checkpoints(&base).files.is_empty());
}

#[test]
fn checkpoints_beside_an_image_are_found_by_identity() {
    let folder = temp_dir();
    let root = folder.path();
    let base = write(root.join("SQL01.vhdx"), &spec(1, None));
    let first = write(root.join("SQL01_1.avhdx"), &spec(2, Some((1, "SQL01.vhdx"))));
    let second = write(root.join("SQL01_2.avhdx"), &spec(3, Some((2, "SQL01_1.avhdx"))));
    let third = write(root.join("renamed"), &spec(4, Some((3, "SQL01_2.avhdx"))));
    // Not of this disk, and not in this folder.
    write(root.join("other.vhdx"), &spec(50, None));
    write(root.join("other.avhdx"), &spec(51, Some((50, "other.vhdx"))));
    write(root.join("below/z.avhdx"), &spec(60, Some((1, "..\\SQL01.vhdx"))));
    std::fs::write(root.join("broken.avhdx"), vec![3; 2 << 20]).unwrap();
    mknodat(CWD, root.join("pipe.avhdx"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let found = checkpoints(&base);
    assert_eq!(names(&found.files), ["SQL01_1.avhdx", "SQL01_2.avhdx", "renamed"]);
    assert_eq!(found.newest.as_ref(), Some(&third));
    assert_eq!((found.leaves, found.stale.len()), (1, 0));
    // It may be a checkpoint.
    assert_eq!((found.is_complete, names(&found.unreadable)), (false, vec!["broken.avhdx".to_owned()]));
    std::fs::rename(root.join("broken.avhdx"), root.join("broken.vhdx")).unwrap();
    // A damaged base matters to no other disk.
    let found = checkpoints(&base);
    assert_eq!((found.is_complete, names(&found.damaged)), (true, vec!["broken.vhdx".to_owned()]));
    assert!(found.unreadable.is_empty());
    assert_eq!(names(&checkpoints(&first).files), ["SQL01_2.avhdx", "renamed"]);
    assert_eq!(names(&checkpoints(&second).files), ["renamed"]);
    let leaf = checkpoints(&third);
    assert!(leaf.files.is_empty() && leaf.newest.is_none() && leaf.stale.is_empty());

    // A branch; then a base that was changed: its checkpoints name it, but do not match.
    let branch = write(root.join("a branch.avhdx"), &spec(5, Some((1, "SQL01.vhdx"))));
    changed_at(&third, 1_000);
    changed_at(&branch, 2_000);
    let found = checkpoints(&base);
    assert_eq!((found.files.len(), found.leaves, found.newest), (4, 2, Some(branch.clone())));
    write(base.clone(), &spec(100, None));
    let found = checkpoints(&base);
    assert!(found.files.is_empty());
    assert_eq!(names(&found.stale), ["SQL01_1.avhdx", "a branch.avhdx"]);
    // Where another image beside it has the identity, they are not its checkpoints.
    write(root.join("moved.vhdx"), &spec(1, None));
    assert!(checkpoints(&base).stale.is_empty());
}

#[test]
fn siblings_are_limited_and_names_like_that_of_the_image_are_looked_at_nevertheless() {
    let folder = temp_dir();
    let base = write(folder.path().join("base.vhdx"), &spec(1, None));
    let other = write(folder.path().join("a.avhdx"), &spec(7, Some((6, "none.vhdx"))));
    for number in 0..4_100 {
        std::fs::hard_link(&other, folder.path().join(format!("a{number}.avhdx"))).unwrap();
    }
    write(folder.path().join("base_1"), &spec(2, Some((1, "base.vhdx"))));
    write(folder.path().join("z"), &spec(3, Some((1, "base.vhdx"))));
    let found = checkpoints(&base);
    assert_eq!((names(&found.files), found.is_complete), (vec!["base_1".to_owned()], false));
    assert!(found.unreadable.is_empty());
    for number in 0..200 {
        std::fs::remove_file(folder.path().join(format!("a{number}.avhdx"))).unwrap();
    }
    let found = checkpoints(&base);
    assert_eq!((names(&found.files), found.is_complete), (vec!["base_1".to_owned(), "z".to_owned()], true));
}

#[test]
fn siblings_of_a_link_are_those_of_its_file_too() {
    let (folder, pool) = (temp_dir(), temp_dir());
    let base = write(folder.path().join("SQL01.vhdx"), &spec(1, None));
    write(folder.path().join("SQL01_1.avhdx"), &spec(2, Some((1, "SQL01.vhdx"))));
    let link = pool.path().join("disk.vhdx");
    symlink(&base, &link).unwrap();
    assert_eq!(names(&checkpoints(&link).files), ["SQL01_1.avhdx"]);
    write(base, &spec(100, None));
    assert_eq!(names(&checkpoints(&link).stale), ["SQL01_1.avhdx"]);
}

#[test]
fn names_written_in_another_way_are_stale_too() {
    let folder = temp_dir();
    let base = write(folder.path().join("caf\u{e9} (1).vhdx"), &spec(1, None));
    let child = write(folder.path().join("z.avhdx"), &spec(3, Some((2, "cafe\u{301}.vhdx"))));
    assert_eq!(checkpoints(&base).stale, [child.as_path()]);
    // It names another file.
    write(folder.path().join("cafe\u{301}.vhdx"), &spec(4, None));
    assert!(checkpoints(&base).stale.is_empty());
}

/// What each image is among the leaves.
fn leaves(images: &[(&str, Spec)]) -> Vec<Option<&'static str>> {
    let folder = temp_dir();
    let paths: Vec<PathBuf> = images.iter().map(|(name, spec)| write(folder.path().join(name), spec)).collect();
    let listing = Listing::of(&paths);
    listing.forest().images().iter().map(|image| image.leaf.map(ForestLeaf::as_str)).collect()
}

#[test]
fn copies_and_stale_parents_are_not_the_current_state() {
    let base = || spec(1, None);
    let child = || spec(2, Some((1, "base.vhdx")));
    // The copy of a base is as old as the base.
    assert_eq!(
        leaves(&[("base.vhdx", base()), ("child.avhdx", child()), ("copy/old.vhdx", base())]),
        [None, Some("current"), None]
    );
    // Two copies of a checkpoint are one state.
    assert_eq!(
        leaves(&[("base.vhdx", base()), ("child.avhdx", child()), ("copy.avhdx", child())]),
        [None, Some("current"), None]
    );
    // The copy of a checkpoint that has a checkpoint.
    let last = spec(3, Some((2, "child.avhdx")));
    assert_eq!(
        leaves(&[("base.vhdx", base()), ("child.avhdx", child()), ("copy.avhdx", child()), ("last.avhdx", last)]),
        [None, None, None, Some("current")]
    );
    // A base that was changed.
    assert_eq!(leaves(&[("base.vhdx", spec(9, None)), ("child.avhdx", child())]), [None, None]);
}

#[test]
fn image_that_is_its_own_parent_is_a_cycle() {
    let folder = temp_dir();
    let own = write(folder.path().join("self.avhdx"), &spec(5, Some((5, "self.avhdx"))));
    assert_eq!(Listing::of(&[own]).forest().images()[0].parent, ForestParent::Cycle(0));
}

#[test]
fn file_that_two_paths_lead_to_is_one_image() {
    let folder = temp_dir();
    let base = write(folder.path().join("base.vhdx"), &spec(1, None));
    write(folder.path().join("child.avhdx"), &spec(2, Some((1, "base.vhdx"))));
    let listing = Listing::of(&[folder.path().to_path_buf(), folder.path().to_path_buf(), base]);
    let images = listing.forest().images();
    assert_eq!((images.len(), images[0].children.as_slice(), images[0].duplicate_of), (2, &[1][..], None));
    let mut checkpoints = Vec::new();
    let collect = |row: InventoryRow| {
        checkpoints.push(row.image.unwrap().checkpoints);
        ControlFlow::Continue(())
    };
    listing.rows(&beside(), collect).unwrap();
    assert_eq!(checkpoints, [1, 0, 1, 0, 1]);
}

#[test]
fn files_that_vanish_during_a_walk_are_errors() {
    let folder = temp_dir();
    for name in ["a.vhdx", "b.vhdx", "c.vhdx"] {
        write(folder.path().join(name), &spec(1, None));
    }
    let mut files = ImageFiles::at(folder.path()).unwrap();
    files.next().unwrap().unwrap();
    std::fs::remove_file(folder.path().join("b.vhdx")).unwrap();
    let error = files.next().unwrap().unwrap_err();
    assert_eq!((error.category(), error.file()), (Category::Open, Some(&*folder.path().join("b.vhdx"))));
    assert_eq!(files.next().unwrap().unwrap().path(), folder.path().join("c.vhdx"));
}

#[test]
fn rows_describe_images_in_order_and_failures_are_rows() {
    let folder = temp_dir();
    let root = folder.path().join("vms");
    let base = spec(1, None).block(0, Block::full()).block(3, Block::full());
    write(root.join("1.vhdx"), &base);
    let child = Spec { data_write_guid: id(2), ..Spec::child_of(&base, "gone.vhdx") }.block(1, Block::full());
    write(root.join("2.avhdx"), &child);
    write(root.join("3.avhdx"), &spec(3, Some((77, "1.vhdx"))));
    write(root.join("4.avhdx"), &spec(4, Some((78, "missing.vhdx"))));
    let mut cut = base.build().bytes.to_vec();
    cut.truncate(cut.len() - 4096);
    std::fs::write(root.join("5.vhdx"), cut).unwrap();
    std::fs::write(root.join("6.vhdx"), "no image").unwrap();
    let missing = folder.path().join("missing.vhdx");
    let rows = rows(&[missing.clone(), root.clone()], &beside());
    let paths: Vec<&Path> = rows.iter().map(|row| row.path.as_path()).collect();
    let expected = ["1.vhdx", "2.avhdx", "3.avhdx", "4.avhdx", "5.vhdx", "6.vhdx"].map(|name| root.join(name));
    assert_eq!(paths[0], missing);
    assert_eq!(paths[1..], expected.each_ref().map(PathBuf::as_path));
    assert_eq!(rows[0].image.as_ref().unwrap_err().category(), Category::Open);
    assert_eq!(rows[6].image.as_ref().unwrap_err().category(), Category::NotVhdx);
    assert_eq!(rows[6].file_size, Some(8));
    let states: Vec<_> = rows[1..6]
        .iter()
        .map(|row| row.image.as_ref().unwrap())
        .map(|row| (row.parent, row.health, row.checkpoints, row.allocated))
        .collect();
    assert_eq!(
        states,
        [
            (ParentStatus::None, Health::Ok, 1, Some(2 * MIB)),
            // Found among the listed images, although the stored name does not exist.
            (ParentStatus::Renamed, Health::Ok, 0, Some(MIB)),
            (ParentStatus::Changed, Health::Incomplete, 0, Some(0)),
            (ParentStatus::Missing, Health::Incomplete, 0, Some(0)),
            (ParentStatus::None, Health::Damaged, 0, Some(2 * MIB)),
        ]
    );
    assert!(rows[1].image.as_ref().unwrap().digests.is_none());
}

#[test]
fn deep_rows_have_digests_and_blocks_of_zeros() {
    use sha2::{Digest as _, Sha256};

    let folder = temp_dir();
    let zeros = Block::full().fill(crate::kit::Fill::Pieces(Vec::new()));
    let base = spec(1, None).block(0, zeros).block(3, Block::full());
    write(folder.path().join("1.vhdx"), &base);
    write(folder.path().join("2.avhdx"), &spec(2, Some((9, "gone.vhdx"))));
    let rows = rows(&[folder.path().to_path_buf()], &beside().deep(true));
    let first = rows[0].image.as_ref().unwrap();
    let model = base.build().model;
    let bytes = crate::kit::Model::read(&[&model], 0, 4 << 20).unwrap();
    let expected = crate::support::hex(&Sha256::digest(&bytes));
    assert_eq!(first.digests.as_ref().unwrap()[0].to_string(), expected);
    assert_eq!((first.zero_blocks, first.health), (Some(1), Health::Ok));
    // What cannot be read has no digest.
    assert!(rows[1].image.as_ref().unwrap().digests.is_none());
}
