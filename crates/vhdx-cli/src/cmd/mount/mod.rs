//! `vhdx mount` and `vhdx umount`: disks as files.
//!
//! What is mounted, [`Opened`], is the same for every kind of mount. [`kernel`] is EROFS, [`fuse`] is FUSE.

mod fuse;
mod kernel;
mod lines;
mod unmount;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vhdx_mmap::report::Info;
use vhdx_mmap::{Disk, Strictness};
use vhdx_serve::tree::{Image, Tree};

use crate::args::{Common, MountArgs, SalvageArgs};
use crate::exit::{Exit, Failure};
use crate::json;
use crate::names::directories_of;
use crate::open;
use crate::term::{self, escape};

pub(crate) use unmount::umount;

/// Images that are mounted, and what a mount shows of them.
pub(super) struct Opened {
    pub(super) images: Vec<Image>,
}

impl Opened {
    fn new(paths: &[PathBuf], args: &MountArgs, common: &Common) -> Result<Self, Failure> {
        let mut images = Vec::new();
        for (path, directory) in paths.iter().zip(directories_of(paths)?) {
            images.push(open_image(path, directory, args, common)?);
        }
        Ok(Self { images })
    }

    /// The files of the mount. Images whose partition table cannot be read have no partitions in it.
    pub(super) fn tree(&self) -> Result<Tree, Failure> {
        Tree::new(self.images.clone()).map_err(|error| Failure::new(Exit::from(error.category()), error.to_string()))
    }

    /// The result, or a failure if an image has changed since it was opened.
    pub(super) fn fail_if_changed<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        self.images.iter().fold(result, |result, image| open::fail_if_changed(image.disk.layers(), result))
    }
}

fn open_image(path: &Path, directory: Option<String>, args: &MountArgs, common: &Common) -> Result<Image, Failure> {
    let failed = |error: vhdx_mmap::Error| Failure::of_image(path, &error);
    let chain = open::salvaged_chain(path, common, &SalvageArgs::only(args.salvage))?;
    let info = Info::of(&chain).map_err(failed)?;
    let strictness = if args.salvage { Strictness::Salvage } else { Strictness::Strict };
    let disk = Arc::new(open::disk_of(chain, path, common, strictness)?);
    let mut bytes = Vec::new();
    json::write_document(&mut bytes, &info)?;
    bytes.push(b'\n');
    Ok(Image { directory, has_partitions: can_read_partitions(path, &disk), disk, info: Some(bytes) })
}

/// Whether the partition table can be read; prints a warning if not.
fn can_read_partitions(path: &Path, disk: &Disk) -> bool {
    let found = vhdx_mmap::ops::detect(disk);
    if let Err(error) = &found {
        let text = format!("{}: partitions are not mounted: {error:#}", path.display());
        term::message("warning", term::WARNING, &escape(&text));
    }
    found.is_ok()
}

pub(crate) fn run(args: &MountArgs, common: &Common) -> Result<Exit, Failure> {
    if let Some(file) = &args.write_erofs {
        let opened = Opened::new(&args.paths, args, common)?;
        return opened.fail_if_changed(kernel::write(file, &opened, args));
    }
    let Some((directory, paths)) = args.paths.split_last().filter(|(_, paths)| !paths.is_empty()) else {
        let failure = Failure::usage("mount: no directory is named");
        return Err(failure.with_hint("name the images, and then the directory: `vhdx mount disk.vhdx /mnt`"));
    };
    fail_if_no_directory(directory)?;
    if args.loop_ && paths.len() > 1 {
        return Err(Failure::usage("--loop: mounts one image (found several)"));
    }
    let must_kernel = args.kernel || args.loop_;
    let must_fuse = args.fuse || args.direct || args.foreground || args.threads.is_some() || fuse::is_server();
    if must_fuse || (!must_kernel && paths.iter().any(|path| is_device(path))) {
        return fuse::run(paths, directory, args, common);
    }
    let folder = match kernel::check() {
        Err(_) if !must_kernel => return fuse::run(paths, directory, args, common),
        folder => folder?,
    };
    let opened = Opened::new(paths, args, common)?;
    opened.fail_if_changed(kernel::run(&opened, paths, directory, &folder, (args, common)))
}

/// Whether a path leads to something else than a file, which EROFS cannot take.
fn is_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

fn fail_if_no_directory(directory: &Path) -> Result<(), Failure> {
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Failure::usage(format!("{}: not a directory", directory.display()))
            .with_hint("name the images, and then the directory: `vhdx mount disk.vhdx /mnt`")),
        Err(error) => {
            let failure = Failure::new(Exit::NoInput, format!("{}: {error}", directory.display()));
            Err(if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::NOTCONN) {
                failure.with_hint("the server of a mount has ended: `vhdx umount` removes the mount")
            } else {
                failure.with_hint("create the directory first")
            })
        }
    }
}
