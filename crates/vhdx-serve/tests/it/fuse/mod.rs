//! Mounts by FUSE as programs see them, of disks whose content the image builder knows.
//!
//! A process that waits for itself would wait forever. So the files are served by a process of their own: the test
//! program, which was started to run the test [`serve`]. It reports on standard output, and unmounts when its standard
//! input is closed.

mod loss;
mod reads;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use vhdx_mmap::{Disk, Error, Source, Strictness};
use vhdx_serve::fuse::{Mount, Options, is_mounted};
use vhdx_serve::tree::{Image, Tree};
use vhdx_serve::{Export, Observer};
use vhdx_testkit::support::{map, skip, with_parents_beside};
use vhdx_testkit::watchdog::Watchdog;

const MOUNTED: &str = "mounted";

/// Content of `info.json`.
const INFO: &[u8] = b"{\"about\": \"a test\"}\n";

fn report(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Prints errors.
struct Print;

impl Observer for Print {
    fn read_failed(&self, export: &Export, error: &Error) {
        report(&format!("{}: {error}", export.name()));
    }
}

/// Serves files, if this process was started to do so: `VHDX_MOUNT` has the directory, words, and the images.
#[test]
fn serve() {
    let Ok(settings) = std::env::var("VHDX_MOUNT") else { return };
    vhdx_mmap::guard_mappings().unwrap();
    let settings: Vec<&str> = settings.split('|').collect();
    let [directory, words, images @ ..] = &*settings else { panic!("{settings:?}") };
    let has = |word: &str| words.split(' ').any(|other| other == word);
    let open = |path: &Path| {
        let source = if has("opened") { Source::open(path).unwrap() } else { map(path) };
        let options = with_parents_beside();
        let options = if has("salvage") { options.strictness(Strictness::Salvage) } else { options };
        Arc::new(Disk::open(source, &options).unwrap())
    };
    let image = |path: &&str| {
        let path = Path::new(path);
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let directory = Some(name).filter(|_| images.len() > 1);
        Image { directory, disk: open(path), info: Some(INFO.to_vec()), has_partitions: !has("bare") }
    };
    let tree = Tree::new(images.iter().map(image).collect()).unwrap();
    let mut options = Options::default();
    options.source = images[0].into();
    options.is_direct = has("direct");
    options.threads = if has("alone") { std::num::NonZeroUsize::MIN } else { options.threads };
    let mount = Mount::new(tree, Path::new(directory), &options, Print).unwrap();
    report(MOUNTED);
    mount.run(std::io::stdin()).unwrap();
}

/// A mounted tree.
struct Mounted {
    server: Child,
    lines: BufReader<ChildStdout>,
    directory: PathBuf,
    _watchdog: Watchdog,
}

impl Mounted {
    /// Mounts images on a new directory beside the first one.
    fn new(images: &[&Path], words: &str) -> Option<Self> {
        if File::options().read(true).write(true).open("/dev/fuse").is_err() {
            skip("fuse", "/dev/fuse cannot be opened");
            return None;
        }
        let directory = images[0].with_extension("mount");
        std::fs::create_dir_all(&directory).unwrap();
        let paths: Vec<String> = images.iter().map(|path| path.display().to_string()).collect();
        let mut server = Command::new(std::env::current_exe().unwrap())
            .args(["fuse::serve", "--exact", "--nocapture"])
            .env("VHDX_MOUNT", format!("{}|{words}|{}", directory.display(), paths.join("|")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let watchdog = Watchdog::over(server.id());
        let lines = BufReader::new(server.stdout.take().unwrap());
        let mut mounted = Self { server, lines, directory, _watchdog: watchdog };
        if !mounted.lines.by_ref().lines().map_while(Result::ok).any(|line| line == MOUNTED) {
            let mut message = String::new();
            mounted.server.stderr.as_mut().unwrap().read_to_string(&mut message).unwrap();
            skip("fuse", &format!("nothing can be mounted: {message}"));
            return None;
        }
        Some(mounted)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn open(&self, name: &str) -> File {
        File::open(self.path(name)).unwrap()
    }

    /// Unmounts, and returns what the server has printed.
    fn end(mut self) -> Vec<String> {
        drop(self.server.stdin.take());
        let lines: Vec<String> = self.lines.by_ref().lines().map(Result::unwrap).collect();
        let status = self.server.wait().unwrap();
        assert!(status.success(), "{status}: {lines:?}");
        assert!(!is_mounted(&self.directory).unwrap());
        // What follows is said by the test harness.
        lines.into_iter().filter(|line| line.contains(".raw: ")).collect()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
        drop(Command::new("umount").arg("--lazy").arg(&self.directory).stderr(Stdio::null()).status());
    }
}
