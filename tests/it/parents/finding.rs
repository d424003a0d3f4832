//! All ways to find a parent.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use uuid::Uuid;
use vhdx_mmap::{Category, Disk, ErrorKind, FoundBy, Image, LogPolicy, OpenOptions, Parents, Source};

use crate::kit::Block;
use crate::kit::builder::Spec;
use crate::support::{map, mapped, temp_dir};

use super::{assert_reads, base, chain, child_at, child_by, found, options, outcomes, refused, write};

#[test]
fn beside_by_relative_path() {
    let folder = temp_dir();
    let vm = folder.path().canonicalize().unwrap().join("vm");
    let base_path = write(&vm, "base.vhdx", &base());
    let below = write(&vm, "one/two/base.vhdx", &base());
    for (stored, expected) in [
        (".\\base.vhdx", &base_path),
        ("base.vhdx", &base_path),
        ("./base.vhdx", &base_path),
        (".\\.\\base.vhdx", &base_path),
        ("one\\..\\base.vhdx", &base_path),
        ("not\\there\\..\\..\\base.vhdx", &base_path),
        ("..\\vm\\base.vhdx", &base_path),
        ("one\\two\\base.vhdx", &below),
        (".\\one\\two/base.vhdx", &below),
        ("one\\\\two\\base.vhdx", &below),
    ] {
        let child = child_at(stored);
        let path = write(&vm, "child.avhdx", &child);
        assert_eq!(found(&path, Parents::Beside), (expected.clone(), FoundBy::RelativePath), "{stored}");
        let disk = Disk::open(map(&path), &options(Parents::Beside)).unwrap();
        assert_reads(&disk, &[&child, &base()]);
    }
}

#[test]
fn beside_ignoring_case() {
    let folder = temp_dir();
    let vm = folder.path().canonicalize().unwrap();
    let path = write(&vm, "child.avhdx", &child_at("DISKS\\Ünï Base.VHDX"));
    let other = write(&vm, "disks/ÜNÏ base.vhdx", &base());
    assert_eq!(found(&path, Parents::Beside), (other, FoundBy::RelativePath));
    // The exact name has priority.
    let exact = write(&vm, "DISKS/Ünï Base.VHDX", &base());
    assert_eq!(found(&path, Parents::Beside), (exact, FoundBy::RelativePath));
}

#[test]
fn all_names_that_differ_only_in_case_are_tried() {
    let folder = temp_dir();
    let vm = folder.path().canonicalize().unwrap();
    let path = write(&vm, "child.avhdx", &child_at("disks\\base.vhdx"));
    let other = Spec { data_write_guid: Uuid::from_u128(7), ..base() };
    for name in ["DISKS/BASE.vhdx", "DISKS/Base.vhdx", "Disks/BASE.vhdx"] {
        write(&vm, name, &other);
    }
    assert_eq!(refused(&path, Parents::Beside).category(), Category::ParentMismatch);
    for name in ["Disks/base.VHDX", "DISKS/Base.VHDX"] {
        let right = write(&vm, name, &base());
        assert_eq!(found(&path, Parents::Beside), (right.clone(), FoundBy::RelativePath));
        std::fs::remove_file(right).unwrap();
    }
}

#[test]
fn impossible_name_is_not_found() {
    let folder = temp_dir();
    let long = "\u{6f22}".repeat(100);
    let path = write(folder.path(), "child.avhdx", &child_at(&format!(".\\{long}\\{long}.vhdx")));
    for parents in [Parents::Beside, Parents::Within(vec![folder.path().to_path_buf()])] {
        assert_eq!(refused(&path, parents).category(), Category::ParentNotFound);
    }
}

#[test]
fn beside_by_file_name_if_relative_path_is_missing() {
    let folder = temp_dir();
    let vm = folder.path().canonicalize().unwrap();
    let base_path = write(&vm, "base.vhdx", &base());
    for paths in [
        [Some("old\\place\\base.vhdx"), None, None],
        [Some("..\\..\\..\\elsewhere\\base.vhdx"), None, None],
        [None, Some("C:\\disks\\base.vhdx"), None],
        [None, Some("\\\\?\\D:\\base.vhdx"), None],
        [None, Some("\\\\server\\share\\base.vhdx"), None],
        [None, Some("D:base.vhdx"), None],
        [None, None, Some("\\\\?\\Volume{00000000-0000-0000-0000-0000eeeeeeee}\\disks\\base.vhdx")],
        [Some("gone.vhdx"), Some("C:\\gone\\too.vhdx"), Some("\\\\?\\Volume{1}\\BASE.vhdx")],
    ] {
        let path = write(&vm, "child.avhdx", &child_by(paths));
        assert_eq!(found(&path, Parents::Beside), (base_path.clone(), FoundBy::FileName), "{paths:?}");
    }
}

#[test]
fn below_root_by_ends_of_stored_paths() {
    let (folder, store) = (temp_dir(), temp_dir());
    let store = store.path().canonicalize().unwrap();
    let stored = [
        [Some("..\\disks\\base.vhdx"), None, None],
        [None, Some("C:\\vms\\disks\\base.vhdx"), None],
        [None, Some("\\\\?\\UNC\\server\\share\\disks\\base.vhdx"), None],
        [None, None, Some("\\\\?\\Volume{00000000-0000-0000-0000-0000eeeeeeee}\\vms\\disks\\base.vhdx")],
    ];
    for paths in stored {
        let path = write(folder.path(), "child.avhdx", &child_by(paths));
        std::fs::remove_dir_all(&store).unwrap();
        // Each is closer to the stored path than the previous ones.
        for place in ["base.vhdx", "disks/base.vhdx"] {
            let expected = write(&store, place, &base());
            let parents = Parents::Within(vec![store.clone()]);
            assert_eq!(found(&path, parents), (expected, FoundBy::Root), "{paths:?}");
        }
        // Elsewhere below the root, the identity decides, whatever the name is.
        for place in ["elsewhere/base.vhdx", "one/two/renamed (1).bak"] {
            std::fs::remove_dir_all(&store).unwrap();
            write(&store, "a.vhdx", &Spec { data_write_guid: Uuid::from_u128(7), ..base() });
            std::fs::write(store.join("b.vhdx"), [7; 5000]).unwrap();
            let expected = write(&store, place, &base());
            let parents = Parents::Within(vec![store.clone()]);
            assert_eq!(found(&path, parents), (expected, FoundBy::Identity), "{paths:?}");
        }
    }
}

#[test]
fn whole_chain_of_renamed_images_is_found_by_identity() {
    let folder = temp_dir();
    let base = base();
    let middle = Spec::child_of(&base, "base.vhdx").block(3, Block::full());
    let top = Spec::child_of(&middle, "middle.avhdx").block(1, Block::full());
    let path = write(folder.path(), "child.avhdx", &top);
    write(folder.path(), "store/x/2.vhdx", &base);
    write(folder.path(), "store/1.vhdx", &middle);
    // A copy of the child is not its own parent, and a changed base is not the base.
    write(folder.path(), "store/0.vhdx", &top);
    write(folder.path(), "store/base.old.vhdx", &Spec { data_write_guid: Uuid::from_u128(9), ..base.clone() });
    let within = || Parents::Within(vec![folder.path().join("store")]);
    let chain = chain(&path, within());
    let how: Vec<_> = chain.layers().iter().skip(1).map(|layer| layer.link().unwrap().found_by).collect();
    assert_eq!(how, [FoundBy::Identity, FoundBy::Identity]);
    assert_reads(&Disk::open(map(&path), &options(within())).unwrap(), &[&top, &middle, &base]);
    // The folder of the child alone is searched by names only.
    assert!(matches!(refused(&path, Parents::Beside).kind(), ErrorKind::ParentNotFound { .. }));
    // Where no image has the identity, the error counts those that were looked at.
    std::fs::remove_file(folder.path().join("store/1.vhdx")).unwrap();
    let error = refused(&path, within());
    assert!(error.to_string().contains("none of 3 images has this identity"), "{error}");
    assert_eq!(error.category(), Category::ParentNotFound);
}

#[test]
fn beside_by_similar_name() {
    let folder = temp_dir();
    let vm = folder.path().canonicalize().unwrap();
    for (stored, name) in [
        ("caf\u{e9}.vhdx", "cafe\u{301}.vhdx"),
        ("cafe\u{301}.vhdx", "caf\u{e9}.vhdx"),
        ("\u{d55c}.vhdx", "\u{1112}\u{1161}\u{11ab}.vhdx"),
        ("base.vhdx", "Base (1).VHDX"),
    ] {
        let path = write(&vm, "child.avhdx", &child_at(&format!(".\\{stored}")));
        let parent = write(&vm, name, &base());
        assert_eq!(found(&path, Parents::Beside), (parent.clone(), FoundBy::Identity), "{name}");
        // A similar name is no reason to report another identity.
        write(&vm, name, &Spec { data_write_guid: Uuid::from_u128(7), ..base() });
        assert_eq!(refused(&path, Parents::Beside).category(), Category::ParentNotFound, "{name}");
        std::fs::remove_file(parent).unwrap();
    }
}

/// A name on NTFS may hold a surrogate without its partner. Other systems replace it by U+FFFD, or by bytes that are
/// not UTF-8.
#[cfg(target_os = "linux")]
#[test]
fn name_with_lone_surrogate_is_found_beside() {
    use std::os::unix::ffi::OsStrExt;

    let folder = temp_dir();
    let vm = folder.path().canonicalize().unwrap();
    let mut child = child_at("b");
    let mut locator = child.locator.take().unwrap().encode();
    let end = locator.len();
    // The value of the second entry, `relative_path`.
    assert_eq!(u16::from_le_bytes([locator[42], locator[43]]), 2);
    let units: Vec<u16> = "base".encode_utf16().chain([0xD800]).chain(".vhdx".encode_utf16()).collect();
    locator.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    locator[36..40].copy_from_slice(&u32::try_from(end).unwrap().to_le_bytes());
    locator[42..44].copy_from_slice(&u16::try_from(units.len() * 2).unwrap().to_le_bytes());
    child.locator = Some(crate::kit::builder::Locator::Raw(locator));
    let path = write(&vm, "child.avhdx", &child);
    for (name, how) in
        [(&b"base\xef\xbf\xbd.vhdx"[..], FoundBy::RelativePath), (b"base\xed\xa0\x80.vhdx", FoundBy::Identity)]
    {
        let parent = vm.join(std::ffi::OsStr::from_bytes(name));
        base().build().bytes.write_file(&parent).unwrap();
        assert_eq!(found(&path, Parents::Beside), (parent.clone(), how));
        std::fs::remove_file(parent).unwrap();
    }
}

#[test]
fn first_root_with_parent_wins() {
    let (folder, one, two) = (temp_dir(), temp_dir(), temp_dir());
    let path = write(folder.path(), "child.avhdx", &child_at(".\\base.vhdx"));
    let (one, two) = (one.path().canonicalize().unwrap(), two.path().canonicalize().unwrap());
    let in_two = write(&two, "base.vhdx", &base());
    let roots = || Parents::Within(vec![folder.path().join("missing"), one.clone(), two.clone()]);
    assert_eq!(found(&path, roots()).0, in_two);
    let in_one = write(&one, "BASE.vhdx", &base());
    assert_eq!(found(&path, roots()).0, in_one);
}

#[test]
fn given_in_any_order_for_any_layer() {
    let folder = temp_dir();
    let specs = {
        let base = base();
        let one = Spec::child_of(&base, "missing-1");
        let two = Spec::child_of(&one, "missing-2");
        let three = Spec::child_of(&two, "missing-3").block(3, crate::kit::Block::full());
        [three, two, one, base]
    };
    let paths: Vec<_> =
        ["3", "2", "1", "0"].iter().zip(&specs).map(|(name, spec)| write(folder.path(), name, spec)).collect();
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        let given: Vec<_> = order.iter().map(|number| paths[*number].clone()).collect();
        // A file of another disk, a missing one, and the child itself do no harm.
        let stranger = write(folder.path(), "stranger", &Spec { data_write_guid: uuid::Uuid::from_u128(1), ..base() });
        let given = [vec![stranger, folder.path().join("missing"), paths[0].clone()], given].concat();
        let disk = Disk::open(map(&paths[0]), &options(Parents::Explicit(given))).unwrap();
        assert!(disk.layers()[1..].iter().all(|layer| layer.link().unwrap().found_by == FoundBy::Given));
        assert_reads(&disk, &specs.each_ref());
    }
    let error = refused(&paths[0], Parents::Explicit(vec![paths[1].clone(), paths[3].clone()]));
    assert_eq!((error.category(), error.layer()), (Category::ParentMismatch, 1));
    // The parent of another file is not a parent of this one, and is not reported.
    assert_eq!(outcomes(&error), [("0".to_owned(), "other identity")]);
}

#[test]
fn first_successful_search_wins() {
    let (folder, store) = (temp_dir(), temp_dir());
    let vm = folder.path().canonicalize().unwrap();
    let store = store.path().canonicalize().unwrap();
    let path = write(&vm, "child.avhdx", &child_at(".\\base.vhdx"));
    let beside = write(&vm, "base.vhdx", &base());
    let stored = write(&store, "base.vhdx", &base());
    let roots = || Parents::Within(vec![store.clone()]);
    let first_of = |all: Vec<Parents>| found(&path, Parents::FirstOf(all));
    assert_eq!(first_of(vec![Parents::Beside, roots()]), (beside.clone(), FoundBy::RelativePath));
    assert_eq!(first_of(vec![roots(), Parents::Beside]), (stored, FoundBy::Root));
    let nested =
        Parents::FirstOf(vec![Parents::None, Parents::FirstOf(vec![Parents::Explicit(vec![]), Parents::Beside])]);
    assert_eq!(found(&path, nested), (beside, FoundBy::RelativePath));
    // Searches without any place are no search.
    let none = chain(&path, Parents::FirstOf(vec![Parents::None, Parents::FirstOf(vec![])]));
    assert!(none.broken().is_none() && none.needs_parent() && none.layers().len() == 1);
}

#[test]
fn custom_search() {
    let folder = temp_dir();
    let one = Spec::child_of(&base(), "one's parent");
    let two = Spec::child_of(&one, "two's parent");
    let path = write(folder.path(), "two", &two);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let (of_two, of_one) = (one.clone(), base());
    let finder = Parents::With(Arc::new(move |request| {
        count.fetch_add(1, Ordering::Relaxed);
        let (guid, name, spec) = match request.layer {
            0 => (of_two.data_write_guid, ".\\two's parent", &of_two),
            _ => (of_one.data_write_guid, ".\\one's parent", &of_one),
        };
        assert_eq!((request.locator.parent_linkage, request.locator.relative_path.as_deref()), (guid, Some(name)));
        assert_eq!(request.child.path().is_some(), request.layer == 0);
        Ok(Some(Source::from_vec(spec.build().bytes.to_vec())))
    }));
    let disk = Disk::open(map(&path), &options(finder)).unwrap();
    assert!(disk.layers()[1..].iter().all(|layer| layer.link().unwrap().found_by == FoundBy::Caller));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert_reads(&disk, &[&two, &one, &base()]);

    // It may find nothing, the wrong file, or an error, which is returned.
    let nothing = refused(&path, Parents::With(Arc::new(|_| Ok(None))));
    assert!(matches!(nothing.kind(), ErrorKind::ParentNotFound { tried, .. } if tried.is_empty()));
    let wrong = Parents::With(Arc::new(|_| Ok(Some(Source::from_vec(base().build().bytes.to_vec())))));
    assert_eq!(refused(&path, wrong).category(), Category::ParentMismatch);
    let junk = Parents::With(Arc::new(|_| Ok(Some(Source::from_vec(vec![1; 3_000_000])))));
    assert_eq!((refused(&path, junk.clone()).category(), refused(&path, junk).layer()), (Category::NotVhdx, 1));
    let failing = Parents::With(Arc::new(|_| Source::load("/no/such/file").map(Some)));
    assert_eq!(refused(&path, failing).category(), Category::Open);
    // Other searches follow it.
    write(folder.path(), "two's parent", &one);
    write(folder.path(), "one's parent", &base());
    let then = Parents::FirstOf(vec![Parents::With(Arc::new(|_| Ok(None))), Parents::Beside]);
    assert_eq!(Disk::open(map(&path), &options(then)).unwrap().layers().len(), 3);
}

#[test]
fn beside_the_file_not_the_link() {
    let folder = temp_dir();
    let vm = folder.path().canonicalize().unwrap();
    let real = write(&vm, "real/child.avhdx", &child_at(".\\base.vhdx"));
    let base_path = write(&vm, "real/base.vhdx", &base());
    // Another file is beside the link.
    write(&vm, "links/base.vhdx", &Spec { data_write_guid: uuid::Uuid::from_u128(1), ..base() });
    let link = vm.join("links/child.avhdx");
    symlink(&real, &link).unwrap();
    assert_eq!(found(&link, Parents::Beside), (base_path, FoundBy::RelativePath));
}

#[test]
fn image_in_memory_has_no_folder() {
    let (folder, child) = (temp_dir(), child_at(".\\base.vhdx"));
    let base_path = write(folder.path(), "base.vhdx", &base());
    let open = |parents| Disk::open(Source::from_vec(child.build().bytes.to_vec()), &options(parents));
    let error = open(Parents::Beside).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ParentNotFound { .. }), "{error}");
    assert_eq!((error.layer(), error.file()), (0, None));
    for parents in [Parents::Explicit(vec![base_path.clone()]), Parents::Within(vec![folder.path().to_path_buf()])] {
        assert_reads(&open(parents).unwrap(), &[&child, &base()]);
    }
}

/// The promise of `Source::map` is about one file.
#[test]
fn parents_are_mapped_only_with_map_parents() {
    let folder = temp_dir();
    let path = write(folder.path(), "child.avhdx", &child_at(".\\base.vhdx"));
    write(folder.path(), "base.vhdx", &base());
    let parents_are_mapped = |source, options| {
        let disk = Disk::open(source, &options).unwrap();
        disk.layers().iter().skip(1).all(|layer| layer.image().source().is_mapped())
    };
    let options = || options(Parents::Beside);
    assert!(!parents_are_mapped(map(&path), options()));
    assert!(!parents_are_mapped(Source::load(&path).unwrap(), options()));
    assert!(parents_are_mapped(map(&path), mapped(options())));
    assert!(parents_are_mapped(Source::open(&path).unwrap(), mapped(options())));
}

#[test]
fn default_options_search_no_parent() {
    let folder = temp_dir();
    let path = write(folder.path(), "child.avhdx", &child_at(".\\base.vhdx"));
    write(folder.path(), "base.vhdx", &base());
    let disk = Disk::open(map(&path), &OpenOptions::new()).unwrap();
    assert_eq!(disk.layers().len(), 1);
    // And an image is opened without its parents.
    assert!(Image::open(map(&path), LogPolicy::Replay).unwrap().parent_locator().unwrap().is_some());
}
