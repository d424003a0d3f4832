//! EROFS metadata, as the kernel and `fsck.erofs` see it.

mod content;
mod limits;
mod loops;
mod loss;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use vhdx_mmap::{Disk, OpenOptions, Parents, Source};
use vhdx_serve::erofs::{self, Metadata, Options};
use vhdx_serve::mount::{self, Detached};
use vhdx_serve::tree::{Image, Tree};
use vhdx_testkit::builder::Image as Built;
use vhdx_testkit::lab::{Expected, size};
use vhdx_testkit::support::{skip, temp_dir};

/// Whether the kernel can mount.
fn can_mount() -> bool {
    static ERROR: LazyLock<Option<String>> = LazyLock::new(|| {
        let folder = temp_dir();
        mount::can_mount_erofs(folder.path()).err().map(|error| error.to_string())
    });
    ERROR.as_ref().inspect(|error| skip("erofs", error)).is_none()
}

/// The tree of a disk, without directories of images.
fn tree_of(disk: Disk) -> Tree {
    let info = Some(b"{}\n".to_vec());
    Tree::new(vec![Image { directory: None, disk: Arc::new(disk), info, has_partitions: true }]).unwrap()
}

/// Files of a chain, child first. A file that is removed counts as changed, so they stay as long as this.
struct Files(tempfile::TempDir);

impl Files {
    fn open(chain: &[&Built]) -> (Self, Disk) {
        let folder = temp_dir();
        let path = |layer: usize| folder.path().join(format!("{layer}.vhdx"));
        for (layer, image) in chain.iter().enumerate() {
            image.bytes.write_file(&path(layer)).unwrap();
        }
        let options = OpenOptions::new().parents(Parents::Explicit((1..chain.len()).map(path).collect()));
        let disk = Disk::open(Source::open(path(0)).unwrap(), &options).unwrap();
        (Self(folder), disk)
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn path(&self, layer: usize) -> PathBuf {
        self.folder().join(format!("{layer}.vhdx"))
    }
}

/// Metadata in a file.
struct Written {
    folder: tempfile::TempDir,
    metadata: Metadata,
}

impl Written {
    fn new(tree: &Tree) -> Self {
        Self::with(tree, &Options::default())
    }

    fn with(tree: &Tree, options: &Options) -> Self {
        let folder = temp_dir();
        let out = File::options().read(true).write(true).create_new(true).open(folder.path().join("erofs")).unwrap();
        let metadata = erofs::write(tree, &out, options).unwrap();
        assert_eq!(out.metadata().unwrap().len(), metadata.len + metadata.copied);
        Self { folder, metadata }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("erofs")
    }

    /// Checks the metadata with `fsck.erofs`, which reads all files, and extracts them to a folder if there is one.
    fn check(&self, to: Option<&Path>) {
        if Command::new("fsck.erofs").arg("-V").output().is_err() {
            skip("erofs", "no fsck.erofs");
            return;
        }
        let mut command = Command::new("fsck.erofs");
        for device in &self.metadata.devices {
            let file = device.source.file().unwrap();
            let number = std::os::fd::AsRawFd::as_raw_fd(file);
            command.arg(format!("--device=/proc/{}/fd/{number}", std::process::id()));
        }
        let extract = to.map_or("--extract".to_owned(), |to| format!("--extract={}", to.display()));
        let ran = command.arg(extract).arg(self.path()).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }

    fn mount(self) -> Mounted {
        let directory = self.folder.path().join("mounted");
        std::fs::create_dir(&directory).unwrap();
        let mounted = Detached::erofs(&self.path(), &self.metadata.devices).unwrap();
        mounted.attach(&directory).unwrap();
        Mounted { _written: self, directory }
    }
}

/// A mounted tree, which is unmounted in the end.
struct Mounted {
    _written: Written,
    directory: PathBuf,
}

impl Mounted {
    fn new(tree: &Tree) -> Self {
        Written::new(tree).mount()
    }

    fn file(&self, path: &str) -> File {
        File::open(self.directory.join(path)).unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a test that fails may have files open.
        let _ = mount::unmount_directory(&self.directory, true);
    }
}

/// Checks all bytes of a file.
#[track_caller]
fn assert_content(path: &Path, expected: &Expected, what: &str) {
    let file = File::open(path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), expected.size(), "{what}: {}", path.display());
    let step = 3 << 20;
    for start in (0..expected.size()).step_by(step) {
        let end = expected.size().min(start + step as u64);
        let mut found = vec![1; size(end - start)];
        file.read_exact_at(&mut found, start).unwrap();
        assert!(found == expected.read(start..end), "{what}: {} from {start:#x} on", path.display());
    }
}
