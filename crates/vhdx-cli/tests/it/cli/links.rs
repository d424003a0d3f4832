//! Symbolic links with --no-follow, and access times.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, SystemTime};

use crate::device::Mount;
use crate::kit::builder::Spec;
use crate::kit::{Block, MIB};
use crate::support::{run, temp_dir, vhdx};

use super::{args, assert_fails, vhdx_run, write_image};

#[test]
fn no_follow_rejects_links_in_any_part_of_the_path() {
    let folder = temp_dir();
    let real = folder.path().join("real");
    std::fs::create_dir(&real).unwrap();
    let path = write_image(&real, "disk.vhdx", &Spec::default());
    let (file, dir, loops) =
        (folder.path().join("link.vhdx"), folder.path().join("dir"), folder.path().join("loop.vhdx"));
    symlink(&path, &file).unwrap();
    symlink(&real, &dir).unwrap();
    symlink(&loops, &loops).unwrap();
    for options in [&["--no-follow"][..], &["--no-follow", "--no-mmap"]] {
        let with = |command: &str, path: &std::path::Path| {
            let args = args![command, path].into_iter().chain(options.iter().map(Into::into));
            run(vhdx(args).current_dir(folder.path()))
        };
        for command in ["info", "map", "hash", "check", "log", "chain"] {
            with(command, &path).done();
            with(command, "real/disk.vhdx".as_ref()).done();
            let code = if command == "check" { 1 } else { 66 };
            for linked in [file.clone(), dir.join("disk.vhdx"), "link.vhdx".into(), "dir/disk.vhdx".into()] {
                assert_fails(
                    &with(command, &linked),
                    code,
                    &["is reached by a symbolic link", "leave out --no-follow"],
                );
            }
            assert_fails(&with(command, &loops), code, &["symbolic link"]);
        }
        // Relative paths begin in the current folder, however that was reached.
        let args = args!["info", "disk.vhdx"].into_iter().chain(options.iter().map(Into::into));
        run(vhdx(args).current_dir(&dir)).done();
    }
    for linked in [&file, &dir.join("disk.vhdx")] {
        vhdx_run(args!["info", linked]).done();
    }
}

#[test]
fn no_follow_concerns_named_parents() {
    let folder = temp_dir();
    let base = Spec::default().block(3, Block::full());
    let base_path = write_image(folder.path(), "base.vhdx", &base);
    let child = write_image(folder.path(), "child.avhdx", &Spec::child_of(&base, "elsewhere.vhdx"));
    let link = folder.path().join("link.vhdx");
    symlink(&base_path, &link).unwrap();
    vhdx_run(args!["map", &child, "--parent", &link]).done();
    vhdx_run(args!["map", &child, "--parent", &base_path, "--no-follow"]).done();
    let ran = vhdx_run(args!["map", &child, "--parent", &link, "--no-follow"]);
    assert_fails(&ran, 66, &["link.vhdx", "is reached by a symbolic link"]);
}

#[cfg(target_os = "linux")]
#[test]
fn access_times_stay_as_they_are() {
    let folder = temp_dir();
    let Some(mount) = Mount::new(
        folder.path(),
        &["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), "size=64M,strictatime".as_ref(), "tmpfs".as_ref()],
    ) else {
        return;
    };
    let base = Spec::default();
    let parent = write_image(&mount.0, "base.vhdx", &base);
    let child = Spec::child_of(&base, "base.vhdx").block(1, Block::full());
    let path = write_image(&mount.0, "child.avhdx", &child);
    let nameless = mount.0.join("nameless");
    std::fs::copy(&parent, &nameless).unwrap();
    let before = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let files = [&path, &parent, &nameless];
    for file in files {
        let times = std::fs::FileTimes::new().set_accessed(before);
        File::options().write(true).open(file).unwrap().set_times(times).unwrap();
    }
    for options in [&[][..], &["--no-mmap"], &["--no-follow"]] {
        for command in [
            args!["info", &path],
            args!["check", "--payload", &path],
            args!["hash", "--file", &path],
            args!["extract", "--force", &path, folder.path().join("out")],
            args!["extract", &path, "-"],
            args!["read", "--range", "0:1M", &path],
            args!["compare", &nameless, &parent],
        ] {
            vhdx_run(command.clone().into_iter().chain(options.iter().map(Into::into))).done();
            for file in files {
                let accessed = std::fs::metadata(file).unwrap().atime();
                assert_eq!(accessed, 1_000_000_000, "{command:?} {options:?}: {}", file.display());
            }
        }
    }
    // The file system itself would have noticed.
    assert_eq!(std::fs::read(&path).unwrap().len() % usize::try_from(MIB).unwrap(), 0);
    assert_ne!(std::fs::metadata(&path).unwrap().atime(), 1_000_000_000);
}
