//! Files in logical volumes of LVM2.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::volumes::image_of;
use super::{args, assert_fails, assert_lines, vhdx_run};
use crate::kit::MIB;
use crate::kit::lvm::Tools;
use crate::schema::assert_valid;
use crate::support::{skip, temp_dir};

/// An ext4 file system of some MiB with one file and two folders.
fn ext4(folder: &Path, name: &str, mebibytes: u64) -> Option<PathBuf> {
    let (tree, raw) = (folder.join(format!("{name}.tree")), folder.join(format!("{name}.raw")));
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::create_dir(tree.join("me")).unwrap();
    fs::write(tree.join(format!("{name}.txt")), format!("This is {name}\n")).unwrap();
    fs::File::create(&raw).unwrap().set_len(mebibytes * MIB).unwrap();
    let mut tool = Command::new("mke2fs");
    tool.args(["-q", "-F", "-t", "ext4", "-L", name, "-d"]).args([&tree, &raw]);
    if !tool.output().is_ok_and(|made| made.status.success()) {
        skip("mkfs", "mke2fs is not there");
        return None;
    }
    Some(raw)
}

/// A disk without partitions that is a physical volume, with three volumes: one in two pieces, one with another file
/// system, and one without.
fn image(folder: &Path) -> Option<PathBuf> {
    let (root, home) = (ext4(folder, "root", 20)?, ext4(folder, "home", 10)?);
    let raw = folder.join("disk.raw");
    fs::File::create(&raw).unwrap().set_len(48 * MIB).unwrap();
    let whole = Tools::new(folder, &raw, &[(0, 48 * MIB)])?;
    whole.group(&[]);
    whole.create("root", "12", &[]);
    whole.create("my-home", "10", &[]);
    whole.run(&["lvextend", "-q", "-l", "20", "vg-0/root"]);
    whole.create("swap", "2", &[]);
    whole.fill("root", &root);
    whole.fill("my-home", &home);
    drop(whole);
    Some(image_of(folder, &raw))
}

/// A disk whose group `rhel` has the volumes `root` and `home`.
pub(super) fn rhel(folder: &Path) -> Option<PathBuf> {
    let (root, home) = (ext4(folder, "root", 12)?, ext4(folder, "home", 8)?);
    let raw = folder.join("rhel.raw");
    fs::File::create(&raw).unwrap().set_len(32 * MIB).unwrap();
    let tools = Tools::new(folder, &raw, &[(0, 32 * MIB)])?;
    tools.group(&[]);
    for (name, extents, image) in [("root", "12", &root), ("home", "8", &home)] {
        tools.create(name, extents, &[]);
        tools.fill(name, image);
    }
    tools.run(&["vgrename", "-q", "vg-0", "rhel"]);
    drop(tools);
    let image = image_of(folder, &raw);
    let named = folder.join("rhel.vhdx");
    fs::rename(image, &named).unwrap();
    Some(named)
}

#[test]
fn logical_volumes_have_names() {
    let folder = temp_dir();
    let Some(image) = image(folder.path()) else { return };
    let inside = |path: &str| -> OsString {
        let mut argument = image.as_os_str().to_owned();
        argument.push(path);
        argument
    };
    let ls = vhdx_run(args!["ls", inside(":/")]);
    assert!(ls.status.success());
    assert_lines(std::str::from_utf8(&ls.out).unwrap(), &["root.txt"]);
    assert!(ls.err.contains("vg-0/root (ext4, 20 MiB) is taken, the largest of 2 file systems"), "{}", ls.err);
    let df = vhdx_run(args!["df", "--json", &image]).done().text();
    let df: Value = serde_json::from_str(&df).unwrap();
    assert_valid(Some("df"), &df);
    let rows: Vec<(&Value, &Value)> =
        df["volumes"].as_array().unwrap().iter().map(|row| (&row["logical-volume"], &row["type"])).collect();
    let text = |text: &str| Value::from(text);
    let expected = [
        (Value::Null, text("LVM2")),
        (text("vg-0/root"), text("ext4")),
        (text("vg-0/my-home"), text("ext4")),
        (text("vg-0/swap"), Value::Null),
    ];
    assert_eq!(rows, expected.iter().map(|(name, kind)| (name, kind)).collect::<Vec<_>>());
    let shown = vhdx_run(args!["df", &image]).done().text();
    assert!(shown.contains("disk.vhdx:vg-0/root:") && shown.contains("disk.vhdx:vg-0/my-home:"), "{shown}");
    let uuid = df["volumes"][2]["uuid"].as_str().unwrap();
    for name in ["vg-0/my-home", "vg--0-my--home", "my-home", "home", uuid] {
        let cat = vhdx_run(args!["cat", inside(&format!(":{name}:/home.txt"))]);
        assert_eq!(cat.done().text(), "This is home\n", "{name}");
    }
    assert_fails(&vhdx_run(args!["ls", inside(":vg-1/root:/")]), 66, &["vg-1/root", "vg-0/my-home (ext4, 10 MiB)"]);
    let json = vhdx_run(args!["find", "--json", inside(":my-home:/"), "--name", "home.txt"]).done().text();
    assert!(json.contains("\"/home.txt\""), "{json}");
    // Where a file lies on the disk, from its volume in pieces to the disk and back.
    let raw = fs::read(folder.path().join("disk.raw")).unwrap();
    let at = raw.windows(13).position(|window| window == b"This is root\n").unwrap();
    let located = vhdx_run(args!["locate", "--json", "--offset", at.to_string(), &image]).done().text();
    let located: Value = serde_json::from_str(located.trim()).unwrap();
    assert_valid(Some("locate"), &located);
    assert_eq!((&located["logical-volume"], &located["path"]), (&text("vg-0/root"), &text("/root.txt")));
    assert_eq!((&located["ranges"][0]["offset"], &located["ranges"][0]["length"]), (&at.into(), &1.into()));
}

#[test]
fn ambiguous_names_are_listed() {
    let folder = temp_dir();
    let Some(home) = ext4(folder.path(), "home", 8) else { return };
    let raw = folder.path().join("disk.raw");
    fs::File::create(&raw).unwrap().set_len(32 * MIB).unwrap();
    let Some(tools) = Tools::new(folder.path(), &raw, &[(0, 32 * MIB)]) else { return };
    tools.group(&[]);
    for name in ["one", "two"] {
        tools.create(name, "8", &[]);
        tools.fill(name, &home);
    }
    drop(tools);
    let image = image_of(folder.path(), &raw);
    let mut argument = image.into_os_string();
    argument.push(":home:/");
    assert_fails(
        &vhdx_run(args!["ls", argument]),
        2,
        &["home is the name of vg-0/one (ext4, 8.0 MiB), vg-0/two (ext4, 8.0 MiB)", "GROUP/NAME"],
    );
}
