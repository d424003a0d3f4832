//! Command lines that mount: the file system in a disk, and metadata with loop devices.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use vhdx_mmap::ops::{self, Partition, Volume as Kind};
use vhdx_serve::erofs::Device;

use crate::exit::{Exit, Failure};
use crate::shell::shell_word;

use super::Opened;

/// A file system in a disk, and how it is mounted.
pub(super) struct Volume {
    /// Path of its file in the mount.
    file: String,
    kind: Kind,
    /// The file of the whole disk, and the offset and length of a partition in it, in bytes.
    inside: Option<(String, u64, u64)>,
}

/// How `mount` is asked for a file system without changing it: its type, and options. `None` for what Linux does not
/// mount from one device.
fn how_to_mount(kind: Kind) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        Kind::Ext2 => ("ext2", "loop,ro"),
        // The journal of a file system that was in use is not replayed.
        Kind::Ext3 => ("ext3", "loop,ro,noload"),
        Kind::Ext4 => ("ext4", "loop,ro,noload"),
        Kind::Xfs => ("xfs", "loop,ro,norecovery,nouuid"),
        Kind::Btrfs => ("btrfs", "loop,ro,rescue=nologreplay"),
        Kind::F2fs => ("f2fs", "loop,ro,norecovery"),
        Kind::Nilfs2 => ("nilfs2", "loop,ro,norecovery"),
        Kind::Ntfs if has_ntfs3() => ("ntfs3", "loop,ro"),
        Kind::Ntfs => ("ntfs-3g", "loop,ro"),
        Kind::Fat | Kind::Fat32 => ("vfat", "loop,ro"),
        Kind::ExFat => ("exfat", "loop,ro"),
        Kind::Erofs => ("erofs", "loop,ro"),
        Kind::Squashfs => ("squashfs", "loop,ro"),
        Kind::Iso9660 => ("iso9660", "loop,ro"),
        Kind::Udf => ("udf", "loop,ro"),
        Kind::HfsPlus | Kind::Hfsx => ("hfsplus", "loop,ro"),
        _ => return None,
    })
}

fn has_ntfs3() -> bool {
    std::fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("\tntfs3\n"))
}

impl Volume {
    /// The file system as a part of the file of the disk, if its own file was left out of the mount.
    pub(super) fn without(self, left_out: &[String]) -> Self {
        match &self.inside {
            Some((disk, ..)) if left_out.contains(&self.file) => Self { file: disk.clone(), ..self },
            _ => Self { inside: None, ..self },
        }
    }

    /// The command that mounts it: program and arguments.
    pub(super) fn command(&self, mounted: &Path, directory: &Path) -> Vec<OsString> {
        // A relative one may look like an option.
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
        let paths = [mounted.join(&self.file), directory];
        self.words().map(OsString::from).chain(paths.into_iter().map(PathBuf::into_os_string)).collect()
    }

    fn words(&self) -> impl Iterator<Item = String> {
        let (kind, options) = how_to_mount(self.kind).unwrap_or(("auto", "loop,ro"));
        let place = self.inside.as_ref().filter(|(disk, ..)| *disk == self.file);
        let place = place.map_or_else(String::new, |(_, start, length)| format!(",offset={start},sizelimit={length}"));
        ["mount", "-t", kind, "-o", &format!("{options}{place}")].map(str::to_owned).into_iter()
    }

    /// The command as a line for a shell.
    pub(super) fn line(&self, mounted: &Path, directory: &Path) -> String {
        let mounted = std::path::absolute(mounted).unwrap_or_else(|_| mounted.to_path_buf());
        let paths = [shell_word(&mounted.join(&self.file)), shell_word(directory)];
        self.words().chain(paths).collect::<Vec<_>>().join(" ")
    }
}

/// The file system in a partition, or the only one in the disk, if it can be mounted. Of several images, those of the
/// first one.
pub(super) fn volume_of(opened: &Opened, partition: Option<u32>) -> Result<Option<Volume>, Failure> {
    let Some(image) = opened.images.first().filter(|image| image.has_partitions) else { return Ok(None) };
    let layout = ops::detect(&image.disk);
    let layout = layout.map_err(|error| Failure::new(Exit::from(error.category()), error.to_string()))?;
    let partitions = layout.partition_table.map_or_else(Vec::new, |table| table.partitions);
    let above = image.directory.as_ref().map_or_else(String::new, |directory| format!("{directory}/"));
    let disk = format!("{above}disk.raw");
    let volume = |file: String, kind: Option<Kind>, inside: Option<(String, u64, u64)>| {
        let kind = kind.filter(|kind| how_to_mount(*kind).is_some())?;
        Some(Volume { file, kind, inside })
    };
    let of_partition = |found: &Partition| {
        let inside = Some((disk.clone(), found.start, found.len));
        volume(format!("{above}part{}.raw", found.number), found.volume, inside)
    };
    if let Some(number) = partition {
        let found = partitions.iter().find(|found| found.number == number);
        let found = found.ok_or_else(|| {
            if partitions.is_empty() {
                let text = format!("--partition {number}: the disk has no partitions");
                return Failure::usage(text).with_hint("leave out --partition");
            }
            let numbers: Vec<String> = partitions.iter().map(|found| found.number.to_string()).collect();
            Failure::usage(format!("--partition {number}: no such partition (found {})", numbers.join(", ")))
        })?;
        return Ok(of_partition(found));
    }
    let mut all: Vec<Volume> = partitions.iter().filter_map(of_partition).collect();
    if partitions.is_empty() {
        all.extend(volume(disk.clone(), layout.volume, None));
    }
    Ok(if all.len() == 1 && opened.images.len() == 1 { all.pop() } else { None })
}

/// What to do if it is not clear which file system is meant.
pub(super) fn how_to_choose(images: &[PathBuf]) -> String {
    let image = images.first().map_or_else(|| "IMAGE".to_owned(), |path| shell_word(path));
    format!("`vhdx info {image}` shows the partitions; --partition N chooses one")
}

/// The lines of a shell script that mounts metadata with a loop device for each image, on `/mnt`. `metadata` is quoted.
pub(super) fn device_lines(devices: &[Device], metadata: &str) -> Result<Vec<String>, Failure> {
    let (mut lines, mut list, mut ends) = (Vec::new(), String::new(), Vec::new());
    for (number, device) in devices.iter().enumerate() {
        let path = device.source.path().ok_or_else(|| Failure::usage("the image is not a file"))?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let name = format!("d{}", number.saturating_add(1));
        let (start, path) = (device.start, shell_word(&path));
        lines.push(format!("{name}=$(losetup --find --show --read-only --offset {start} {path})"));
        list.push_str(&format!(",device=${name}"));
        ends.push(format!("\"${name}\""));
    }
    lines.push(format!("mount -t erofs -o \"ro,loop{list}\" {metadata} /mnt"));
    if !ends.is_empty() {
        // The devices end when the file system is unmounted.
        lines.push(format!("losetup --detach {}", ends.join(" ")));
    }
    Ok(lines)
}
