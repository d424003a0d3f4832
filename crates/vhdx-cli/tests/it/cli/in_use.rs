//! Images that another program has open for writing.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{FlockOperation, fcntl_lock};
use serde_json::{Value, json};

use crate::kit::builder::Spec;
use crate::support::{skip, temp_dir};

use super::{args, not_in_use, vhdx_run, write_image};

/// What the commands say about the image: JSON values that must all be equal, and whether there is a warning.
fn in_use(path: &Path) -> (Value, bool) {
    let json = |command: &str| vhdx_run(args![command, "--json", path]).done().json();
    let info = json("info")["format-specific"]["data"]["in-use"].clone();
    for command in ["hash", "map", "check"] {
        assert_eq!(json(command)["in-use"], info, "{command}");
    }
    let two = vhdx_run(args!["compare", "--json", path, path]).done().json();
    assert_eq!(two["in-use"], json!([info, info]));
    assert_eq!(json("chain")["layers"][0]["in-use"], info);
    let warns = |text: &str| text.contains("in use: another program has it open for writing");
    let ran = vhdx_run(args!["hash", path]).done();
    let expected = warns(&ran.err);
    for command in ["map", "check"] {
        assert_eq!(warns(&vhdx_run(args![command, path]).done().err), expected, "{command}");
    }
    let text = vhdx_run(args!["info", path]).done().text();
    assert_eq!(text.contains("in use: another program has the file open for writing"), expected, "{text}");
    assert_eq!(vhdx_run(args!["hash", "-q", path]).done().err, "");
    (info, expected)
}

#[test]
fn locks_for_writing_are_reported() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let other = write_image(folder.path(), "other.vhdx", &Spec::default());
    assert_eq!(in_use(&path), (not_in_use(), false));
    let open = || File::options().read(true).write(true).open(&path).unwrap();
    {
        let file = open();
        fcntl_lock(&file, FlockOperation::LockShared).unwrap();
        assert_eq!(in_use(&path), (not_in_use(), false), "a reader");
        fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
        assert_eq!(in_use(&path), (json!(true), true), "a lock by fcntl");
        assert_eq!(in_use(&other), (not_in_use(), false));
    }
    assert_eq!(in_use(&path), (not_in_use(), false), "the lock is gone");
    let file = open();
    file.lock_shared().unwrap();
    assert_eq!(in_use(&path), (not_in_use(), false), "a reader");
    file.lock().unwrap();
    assert_eq!(in_use(&path), (json!(true), true), "a lock by flock");
    // Parents, too.
    let child = write_image(folder.path(), "child.avhdx", &Spec::child_of(&Spec::default(), "disk.vhdx"));
    for command in ["map", "check", "hash", "diff"] {
        let ran = vhdx_run(args![command, "--json", &child]).done();
        assert!(ran.err.contains("disk.vhdx: in use: "), "{}", ran.err);
        assert_eq!(ran.json()["in-use"], true, "{command}");
    }
    let manifest = folder.path().join("manifest");
    let written = vhdx_run(args!["hash", "--json", "--manifest", &manifest, &child]).done().json();
    assert_eq!(written["in-use"], true);
    let verified = vhdx_run(args!["verify", "--json", "--manifest", &manifest, &child]).done().json();
    assert_eq!(verified["in-use"], true);
    let text = vhdx_run(args!["info", &child]).done().text();
    assert!(
        text.contains("parent in use: another program has ") && text.contains("disk.vhdx open for writing"),
        "{text}"
    );
}

/// qemu-io with an image open, at its prompt.
struct QemuIo(Child);

impl QemuIo {
    fn open(options: &[&str], path: &Path) -> Option<Self> {
        let mut command = Command::new("qemu-io");
        command.args(options).args(["-f", "vhdx"]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            skip("qemu", "no qemu-io");
            return None;
        };
        let out = child.stdout.as_mut().unwrap();
        let mut shown = Vec::new();
        while !shown.ends_with(b"qemu-io> ") {
            let mut byte = [0];
            assert_eq!(out.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&shown));
            shown.push(byte[0]);
        }
        Some(Self(child))
    }
}

impl Drop for QemuIo {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn images_open_in_qemu_are_reported() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    {
        let Some(_reader) = QemuIo::open(&["-r"], &path) else { return };
        assert_eq!(in_use(&path), (not_in_use(), false), "a reader");
    }
    let Some(_writer) = QemuIo::open(&[], &path) else { return };
    assert_eq!(in_use(&path), (json!(true), true), "a writer");
}
