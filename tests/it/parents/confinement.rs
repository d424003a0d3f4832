//! Paths in images are not trustworthy: files outside the allowed folders are not opened, and paths that are not files
//! do not block.

use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use vhdx_mmap::{Category, Error, ErrorKind, FoundBy, Parents};

use crate::kit::builder::Spec;
use crate::support::temp_dir;

use super::{base, child_at, child_by, found, outcomes, refused, write};

/// Asserts that no parent was found, and that one path was not even accessed.
#[track_caller]
fn assert_outside(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::ParentNotFound { .. }), "{error}");
    assert_eq!(error.category(), Category::ParentNotFound);
    assert!(outcomes(error).iter().any(|(_, outcome)| *outcome == "outside"), "{error}");
}

#[test]
fn relative_path_stays_in_folder() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    // The right parent, in the wrong folder.
    write(&root, "base.vhdx", &base());
    write(&root, "vm-other/base.vhdx", &base());
    write(&root, "vm/sub/nothing", &base());
    for stored in
        ["..\\base.vhdx", "../base.vhdx", "sub\\..\\..\\base.vhdx", "..\\vm-other\\base.vhdx", "..\\vm\\..\\base.vhdx"]
    {
        let path = write(&root, "vm/child.avhdx", &child_at(stored));
        assert_outside(&refused(&path, Parents::Beside));
    }
    let many = "..\\".repeat(100) + root.join("base.vhdx").to_str().unwrap().trim_start_matches('/');
    let path = write(&root, "vm/child.avhdx", &child_at(&many));
    assert_outside(&refused(&path, Parents::Beside));
}

#[test]
fn absolute_path_is_never_opened() {
    let (folder, other) = (temp_dir(), temp_dir());
    let base_path = write(other.path(), "base.vhdx", &base());
    let absolute = base_path.to_str().unwrap();
    let backslashed = absolute.replace('/', "\\");
    for stored in [absolute, &backslashed, &format!("C:{backslashed}"), &format!("\\\\?\\C:{backslashed}")] {
        for paths in [[Some(stored), None, None], [None, Some(stored), None], [None, None, Some(stored)]] {
            let path = write(folder.path(), "child.avhdx", &child_by(paths));
            for parents in [Parents::Beside, Parents::Within(vec![folder.path().to_path_buf()])] {
                let error = refused(&path, parents);
                assert!(matches!(error.kind(), ErrorKind::ParentNotFound { .. }), "{paths:?}: {error}");
            }
            // It is a name for a search that may look there.
            assert_eq!(found(&path, Parents::Within(vec![other.path().to_path_buf()])).1, FoundBy::Root);
        }
    }
}

#[test]
fn symbolic_link_stays_in_folder() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    let outside = write(&root, "outside/base.vhdx", &base());
    let vm = root.join("vm");
    let roots = || Parents::Within(vec![vm.clone()]);
    let path = write(&root, "vm/child.avhdx", &child_at(".\\sub\\base.vhdx"));
    let sub = vm.join("sub");
    // The folder is a link, to an absolute and to a relative path.
    for target in [root.join("outside"), "../outside".into()] {
        symlink(target, &sub).unwrap();
        for parents in [Parents::Beside, roots()] {
            assert_outside(&refused(&path, parents));
        }
        std::fs::remove_file(&sub).unwrap();
    }
    // The file is one, or a link to one.
    std::fs::create_dir(&sub).unwrap();
    let link = sub.join("base.vhdx");
    for target in [outside.clone(), "../../outside/base.vhdx".into(), "second".into()] {
        symlink(&target, &link).unwrap();
        if target == Path::new("second") {
            symlink(&outside, sub.join("second")).unwrap();
        }
        for parents in [Parents::Beside, roots()] {
            assert_outside(&refused(&path, parents));
        }
        std::fs::remove_file(&link).unwrap();
    }
    // A link that the caller names is followed.
    symlink(&outside, &link).unwrap();
    assert_eq!(found(&path, Parents::Explicit(vec![link.clone()])), (outside, FoundBy::Given));
    // A link that stays inside is a path like any other.
    std::fs::remove_file(&link).unwrap();
    let inside = write(&root, "vm/real/base.vhdx", &base());
    for target in ["../real/base.vhdx".into(), inside.clone()] {
        symlink(target, &link).unwrap();
        for (parents, found_by) in [(Parents::Beside, FoundBy::RelativePath), (roots(), FoundBy::Root)] {
            assert_eq!(found(&path, parents), (inside.clone(), found_by));
        }
        std::fs::remove_file(&link).unwrap();
    }
    // A link to itself leads to no file.
    symlink("base.vhdx", &link).unwrap();
    refused(&path, Parents::Beside);
    assert_eq!(found(&path, roots()), (inside.clone(), FoundBy::Identity));
    std::fs::remove_file(&inside).unwrap();
    refused(&path, roots());
}

/// A link replaces a folder between two accesses to it.
#[cfg(target_os = "linux")]
#[test]
fn link_made_during_search_is_not_followed() {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{RenameFlags, renameat_with};
    use vhdx_mmap::FileId;

    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    let path = write(&root, "vm/child.avhdx", &child_at(".\\sub\\base.vhdx"));
    let outside = FileId::of(write(&root, "outside/base.vhdx", &base())).unwrap();
    let inside = FileId::of(write(&root, "vm/sub/base.vhdx", &base())).unwrap();
    let (sub, link) = (root.join("vm/sub"), root.join("vm/link"));
    symlink("../outside", &link).unwrap();
    let is_over = AtomicBool::new(false);
    let (mut found, mut refused, mut is_followed) = (0, 0, false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                renameat_with(CWD, &sub, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for _ in 0..100_000 {
            let chain = super::chain(&path, Parents::Beside);
            match chain.layers().get(1).map(|layer| layer.image().source().id().unwrap()) {
                Some(id) if id == inside => found += 1,
                Some(id) => is_followed |= id == outside,
                None => refused += 1,
            }
            if is_followed || found > 2000 && refused > 2000 {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(!is_followed && found > 0 && refused > 0, "{is_followed} {found} {refused}");
}

#[test]
fn search_may_begin_at_a_link() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    let path = write(&root, "vm/child.avhdx", &child_at(".\\base.vhdx"));
    let expected = write(&root, "store/base.vhdx", &base());
    symlink("store", root.join("link")).unwrap();
    assert_eq!(found(&path, Parents::Within(vec![root.join("link")])), (expected, FoundBy::Root));
}

#[test]
fn search_does_not_block_on_special_files() {
    let folder = temp_dir();
    let root = folder.path().canonicalize().unwrap();
    let path = write(&root, "child.avhdx", &child_at(".\\base.vhdx"));
    let place = root.join("base.vhdx");
    let searches = || [Parents::Beside, Parents::Within(vec![root.clone()]), Parents::Explicit(vec![place.clone()])];
    // A pipe without a writer, by its name and through a link.
    let pipe = root.join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let make: [(&str, &dyn Fn()); 3] = [
        ("a pipe", &|| mknodat(CWD, &place, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap()),
        ("a link to a pipe", &|| symlink("pipe", &place).unwrap()),
        ("a folder", &|| std::fs::create_dir(&place).unwrap()),
    ];
    for (what, make) in make {
        make();
        for parents in [Parents::Beside, Parents::Within(vec![root.clone()])] {
            let error = refused(&path, parents);
            assert_eq!((error.category(), error.layer()), (Category::ParentNotFound, 0), "{what}: {error}");
            assert!(outcomes(&error).iter().any(|(_, outcome)| *outcome == "not a file"), "{what}: {error}");
        }
        // The error for a caller who names it contains its kind.
        let error = refused(&path, Parents::Explicit(vec![place.clone()]));
        assert_eq!((error.category(), error.layer()), (Category::Open, 1), "{what}: {error}");
        assert!(matches!(error.kind(), ErrorKind::NotAFile { .. }), "{what}: {error}");
        assert_eq!(error.file().unwrap().parent(), Some(&*root), "{what}: {error}");
        std::fs::remove_dir(&place).or_else(|_| std::fs::remove_file(&place)).unwrap();
    }
    // A link to a device leads out.
    symlink("/dev/zero", &place).unwrap();
    for parents in searches() {
        let error = refused(&path, parents);
        assert!(matches!(error.category(), Category::Open | Category::ParentNotFound), "{error}");
    }
}

#[test]
fn rejected_candidate_does_not_end_search() {
    let (folder, store) = (temp_dir(), temp_dir());
    let path = write(folder.path(), "child.avhdx", &child_by([Some(".\\one\\base.vhdx"), Some("C:\\base.vhdx"), None]));
    let stored = write(&store.path().canonicalize().unwrap(), "base.vhdx", &base());
    let both = || Parents::FirstOf(vec![Parents::Beside, Parents::Within(vec![store.path().to_path_buf()])]);
    // At the relative path is a folder; then junk; then another image; also at the file name beside the child.
    let wrong = Spec { data_write_guid: uuid::Uuid::from_u128(1), ..base() };
    std::fs::create_dir_all(folder.path().join("one/base.vhdx")).unwrap();
    assert_eq!(found(&path, both()).0, stored);
    std::fs::remove_dir(folder.path().join("one/base.vhdx")).unwrap();
    std::fs::write(folder.path().join("one/base.vhdx"), vec![1; 100_000]).unwrap();
    assert_eq!(found(&path, both()).0, stored);
    write(folder.path(), "one/base.vhdx", &wrong);
    write(folder.path(), "base.vhdx", &wrong);
    assert_eq!(found(&path, both()).0, stored);
    let beside = write(&folder.path().canonicalize().unwrap(), "base.vhdx", &base());
    assert_eq!(found(&path, both()), (beside, FoundBy::FileName));
}
