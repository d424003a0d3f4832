//! Which files are accepted as a parent, and the errors for others.

use uuid::Uuid;
use vhdx_mmap::{Category, Chain, Disk, Error, ErrorKind, ImageKind, ParentRejection, Parents, Rule, Severity};

use crate::kit::builder::{Locator, Spec, VHDX_LOCATOR};
use crate::kit::{Block, MIB};
use crate::support::{map, temp_dir};

use super::{base, chain, child_at, child_by, found, options, outcomes, refused, write};

/// Returns the codes of the warnings about a layer.
fn codes(chain: &Chain, layer: usize) -> Vec<&'static str> {
    chain.layers()[layer].warnings().map(|warning| warning.rule.code()).collect()
}

fn with_locator(change: impl FnOnce(&mut Locator)) -> Spec {
    let mut child = child_at(".\\base.vhdx");
    change(child.locator.as_mut().unwrap());
    child
}

const OTHER: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

#[test]
fn image_with_other_identity_is_not_the_parent() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    let path = write(&root, "child.avhdx", &child_by([Some(".\\sub\\base.vhdx"), Some("C:\\base.vhdx"), None]));
    write(&root, "sub/base.vhdx", &Spec { data_write_guid: OTHER, ..base() });
    let error = refused(&path, Parents::Beside);
    assert_eq!((error.category(), error.layer(), error.file()), (Category::ParentMismatch, 0, Some(&*path)));
    let ErrorKind::ParentMismatch { name, expected, tried } = error.kind() else {
        unreachable!("{error}");
    };
    assert_eq!((&**name, *expected), (".\\sub\\base.vhdx", base().data_write_guid));
    assert_eq!(outcomes(&error), [("base.vhdx".to_owned(), "other identity"), ("base.vhdx".to_owned(), "missing")]);
    assert_eq!(tried[0].path, root.join("sub/base.vhdx"));
    assert!(matches!(tried[0].rejection, ParentRejection::OtherIdentity { found: OTHER }));
    assert_eq!(tried[1].path, root.join("base.vhdx"));
    let text = error.to_string();
    for word in ["sub", "base.vhdx", &base().data_write_guid.to_string(), &OTHER.to_string(), "no such file"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    // Neither the FileWriteGuid nor the VirtualDiskId identifies a parent.
    let near = Spec { file_write_guid: base().data_write_guid, disk_id: base().data_write_guid, ..base() };
    write(&root, "sub/base.vhdx", &Spec { data_write_guid: OTHER, ..near });
    assert_eq!(refused(&path, Parents::Beside).category(), Category::ParentMismatch);
}

#[test]
fn existing_candidates_determine_the_error() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    let path = write(&root, "child.avhdx", &child_by([Some(".\\sub\\base.vhdx"), Some("C:\\base.vhdx"), None]));
    let error = refused(&path, Parents::Beside);
    assert!(matches!(error.kind(), ErrorKind::ParentNotFound { name, .. } if name == ".\\sub\\base.vhdx"), "{error}");
    assert_eq!(error.category(), Category::ParentNotFound);
    assert_eq!(outcomes(&error), [("base.vhdx".to_owned(), "missing"), ("base.vhdx".to_owned(), "missing")]);
    // A file that is not an image, if there is nothing else.
    std::fs::write(root.join("base.vhdx"), vec![1; 100_000]).unwrap();
    let error = refused(&path, Parents::Beside);
    assert_eq!((error.category(), error.layer()), (Category::NotVhdx, 1));
    assert_eq!(error.file(), Some(&*root.join("base.vhdx")));
    assert!(error.to_string().contains("layer 1") && error.to_string().contains("base.vhdx"), "{error}");
    // An image that is not the parent, before it.
    write(&root, "sub/base.vhdx", &Spec { data_write_guid: OTHER, ..base() });
    let error = refused(&path, Parents::Beside);
    assert_eq!(error.category(), Category::ParentMismatch);
    assert_eq!(outcomes(&error), [("base.vhdx".to_owned(), "other identity"), ("base.vhdx".to_owned(), "broken")]);
}

#[test]
fn second_identity_is_valid_during_merge() {
    let folder = temp_dir();
    write(folder.path(), "base.vhdx", &Spec { data_write_guid: OTHER, ..base() });
    let child = with_locator(|locator| locator.set("parent_linkage2", &format!("{{{OTHER}}}")));
    let path = write(folder.path(), "child.avhdx", &child);
    let chain = chain(&path, Parents::Beside);
    assert!(chain.broken().is_none());
    assert_eq!(chain.layers()[1].link().unwrap().linkage.as_str(), "parent_linkage2");
    let warning = chain.layers()[0].warnings().find(|warning| warning.rule == Rule::ParentIdentity).unwrap();
    assert_eq!((warning.rule.code(), warning.rule.severity()), ("V59", Severity::Warning));
    // The first one is still valid.
    write(folder.path(), "base.vhdx", &base());
    let chain = super::chain(&path, Parents::Beside);
    assert_eq!(chain.layers()[1].link().unwrap().linkage.as_str(), "parent_linkage");
    assert!(!codes(&chain, 0).contains(&"V59"));
}

#[test]
fn nil_identity_matches_nothing() {
    let folder = temp_dir();
    let nil = format!("{{{}}}", Uuid::nil());
    write(folder.path(), "base.vhdx", &Spec { data_write_guid: Uuid::nil(), ..base() });
    let second = with_locator(|locator| locator.set("parent_linkage2", &nil));
    let first = with_locator(|locator| locator.set("parent_linkage", &nil));
    for child in [second, first] {
        let path = write(folder.path(), "child.avhdx", &child);
        assert_eq!(refused(&path, Parents::Beside).category(), Category::ParentMismatch);
        let given = Parents::Explicit(vec![folder.path().join("base.vhdx")]);
        assert_eq!(refused(&path, given).category(), Category::ParentMismatch);
    }
}

#[test]
fn identity_has_several_notations() {
    let folder = temp_dir();
    let guid = Uuid::from_u128(0xABCD_EF01_2345_6789_ABCD_EF01_2345_6789);
    write(folder.path(), "base.vhdx", &Spec { data_write_guid: guid, ..base() });
    for (text, note) in [
        (format!("{{{guid}}}"), false),
        (format!("{{{guid:X}}}"), false),
        (guid.to_string(), true),
        (guid.to_string().to_uppercase(), true),
    ] {
        let path = write(folder.path(), "child.avhdx", &with_locator(|locator| locator.set("parent_linkage", &text)));
        let chain = chain(&path, Parents::Beside);
        assert!(chain.broken().is_none(), "{text}: {:?}", chain.broken());
        assert_eq!(codes(&chain, 0).contains(&"V57"), note, "{text}");
    }
    for text in ["{}", "", "base", "{ABCDEF01-2345-6789-ABCD-EF0123456789", "{ABCDEF0123456789ABCDEF0123456789}"] {
        let path = write(folder.path(), "child.avhdx", &with_locator(|locator| locator.set("parent_linkage", text)));
        assert_eq!(refused(&path, Parents::Beside).category(), Category::Corrupt, "{text}");
    }
}

/// Asserts that the link from an image to its parent cannot be used, while the image itself can.
#[track_caller]
fn assert_unusable(spec: &Spec, category: Category, kind: impl Fn(&ErrorKind) -> bool) {
    let folder = temp_dir();
    let path = write(folder.path(), "child.avhdx", spec);
    let base_path = write(folder.path(), "base.vhdx", &base());
    for parents in [Parents::Beside, Parents::Explicit(vec![base_path])] {
        let error: Error = refused(&path, parents.clone());
        assert_eq!((error.category(), error.layer()), (category, 0), "{error}");
        assert!(kind(error.kind()), "{error}");
        let chain = chain(&path, parents);
        assert_eq!((chain.layers().len(), chain.needs_parent()), (1, true));
        assert_eq!(chain.layers()[0].image().kind(), ImageKind::Differencing);
        let mut bytes = [0; 16];
        assert_eq!(Disk::so_far(&chain).read_at(&mut bytes, MIB).unwrap(), 16);
        assert_eq!(bytes[..], crate::kit::pattern(spec.seed, MIB, 16));
    }
}

#[test]
fn child_without_usable_locator_has_no_parent() {
    let mut without = child_at(".\\base.vhdx");
    without.locator = None;
    assert_unusable(&without, Category::Corrupt, |kind| matches!(kind, ErrorKind::Missing { .. }));

    let unknown = with_locator(|locator| *locator = Locator::Pairs(OTHER, Vec::new()));
    assert_unusable(
        &unknown,
        Category::Unsupported,
        |kind| matches!(kind, ErrorKind::UnknownLocatorType { id } if *id == OTHER),
    );

    let unlinked = with_locator(|locator| locator.remove("parent_linkage"));
    assert_unusable(&unlinked, Category::Corrupt, |kind| matches!(kind, ErrorKind::Missing { what: "parent_linkage" }));

    let twice = with_locator(|locator| {
        let Locator::Pairs(_, pairs) = locator else { unreachable!() };
        pairs.push((pairs[0].0.clone(), format!("{{{OTHER}}}")));
    });
    assert_unusable(&twice, Category::Corrupt, |kind| matches!(kind, ErrorKind::Text { .. }));

    let short = with_locator(|locator| *locator = Locator::Raw(VHDX_LOCATOR.to_bytes_le().to_vec()));
    assert_unusable(&short, Category::Corrupt, |kind| matches!(kind, ErrorKind::OutOfBounds { .. }));
}

#[test]
fn child_without_path_accepts_given_parent() {
    let folder = temp_dir();
    let path = write(folder.path(), "child.avhdx", &child_by([None, None, None]));
    let base_path = write(folder.path(), "base.vhdx", &base());
    assert_eq!(refused(&path, Parents::Beside).category(), Category::ParentNotFound);
    let chain = chain(&path, Parents::Explicit(vec![base_path]));
    assert!(chain.broken().is_none());
    assert!(codes(&chain, 0).contains(&"V58"));
}

#[test]
fn unknown_keys_and_invalid_second_identity_are_ignored() {
    let folder = temp_dir();
    write(folder.path(), "base.vhdx", &base());
    let child = with_locator(|locator| {
        locator.set("parent_linkage2", "nonsense");
        locator.set("Parent_Linkage", "keys are case-sensitive");
        locator.set("vendor", "of something");
    });
    let chain = chain(&write(folder.path(), "child.avhdx", &child), Parents::Beside);
    assert!(chain.broken().is_none(), "{:?}", chain.broken());
}

#[test]
fn parent_with_other_sector_size_is_rejected() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    let path = write(&root, "child.avhdx", &child_at(".\\base.vhdx"));
    write(&root, "base.vhdx", &Spec { sector_size: 4096, ..base() });
    let error = refused(&path, Parents::Beside);
    assert!(matches!(error.kind(), ErrorKind::SectorSizeMismatch { found: 4096, expected: 512 }), "{error}");
    assert_eq!((error.layer(), error.file()), (1, Some(&*root.join("base.vhdx"))));
    assert_eq!(chain(&path, Parents::Beside).layers().len(), 1);
    // But the search continues.
    let other = write(&root, "other.vhdx", &base());
    let given = Parents::Explicit(vec![root.join("base.vhdx"), other.clone()]);
    assert_eq!(found(&path, given).0, other);
}

#[test]
fn error_of_right_parent_has_priority() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    let path = write(&root, "child.avhdx", &child_at(".\\base.vhdx"));
    let other = write(&root, "other.vhdx", &Spec { data_write_guid: OTHER, ..base() });
    let junk = root.join("junk");
    std::fs::write(&junk, "no image").unwrap();
    let mut image = base().build();
    // The signature of the metadata table.
    image.bytes.write(base().metadata_offset, b"M");
    let right = root.join("right.vhdx");
    image.bytes.write_file(&right).unwrap();
    for given in [[&other, &right, &junk], [&right, &junk, &other], [&junk, &other, &right]] {
        let error = refused(&path, Parents::Explicit(given.map(Clone::clone).to_vec()));
        assert_eq!((error.category(), error.layer(), error.file()), (Category::Corrupt, 1, Some(&*right)), "{error}");
    }
}

#[test]
fn error_of_parent_has_layer_and_file() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    let path = write(&root, "child.avhdx", &child_at(".\\base.vhdx"));
    let base_path = root.join("base.vhdx");
    let mut image = base().build();
    image.bytes.write(2 * MIB, b"METADATA");
    image.bytes.write_file(&base_path).unwrap();
    for parents in [Parents::Beside, Parents::Explicit(vec![base_path.clone()])] {
        let error = refused(&path, parents);
        assert_eq!((error.category(), error.layer(), error.file()), (Category::Corrupt, 1, Some(&*base_path)));
        assert_eq!(error.offset(), Some(2 * MIB));
        let text = error.to_string();
        assert!(text.starts_with("layer 1 (") && text.contains("metadata table at 0x200000"), "{text}");
    }
}

#[test]
fn error_of_block_has_layer_and_file() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    let mut damaged = base();
    damaged.raw_bat.insert(3, 5);
    let base_path = write(&root, "base.vhdx", &damaged);
    let middle = Spec::child_of(&damaged, "base.vhdx");
    write(&root, "middle.avhdx", &middle);
    let top = Spec::child_of(&middle, "middle.avhdx").block(0, Block::full());
    let path = write(&root, "top.avhdx", &top);
    let disk = Disk::open(map(&path), &options(Parents::Beside)).unwrap();
    let error = disk.read_at(&mut [0], 3 * MIB).unwrap_err();
    assert_eq!((error.layer(), error.file()), (2, Some(&*base_path)));
    assert!(matches!(error.kind(), ErrorKind::ReservedState { state: 5 }), "{error}");
    assert!(error.to_string().starts_with("layer 2 ("), "{error}");
    let in_map = disk.extents(..).find_map(Result::err).unwrap();
    assert_eq!((in_map.layer(), in_map.file()), (2, Some(&*base_path)));
    let in_content = disk.segments(..).find_map(Result::err).unwrap();
    assert_eq!(in_content.layer(), 2);
}
