//! Volume groups of LVM2, made by its own tools.
//!
//! The tools do without a device mapper: they write their metadata, and nothing of a volume is ever active. What lies
//! where is taken from `lvs`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use crate::MIB;
use crate::device::Loop;
use crate::support::skip;

/// Size of an extent, in MiB.
pub const EXTENT: u64 = 1;

/// Partitions as devices, and the tools of LVM that see nothing else.
pub struct Tools<'t> {
    folder: &'t Path,
    raw: &'t Path,
    parts: Vec<(u64, u64)>,
    devices: Vec<Loop>,
}

impl<'t> Tools<'t> {
    /// Makes devices of parts of a raw disk, by their starts and lengths in bytes. `None` if that cannot be done.
    pub fn new(folder: &'t Path, raw: &'t Path, parts: &[(u64, u64)]) -> Option<Self> {
        if Command::new("lvs").arg("--version").output().is_err() {
            skip("lvm", "the tools of LVM2 are not there");
            return None;
        }
        let device = |(start, length): &(u64, u64)| {
            let (start, length) = (start.to_string(), length.to_string());
            let args: [&OsStr; 5] =
                ["-o".as_ref(), start.as_ref(), "--sizelimit".as_ref(), length.as_ref(), raw.as_ref()];
            Loop::attached(&args)
        };
        let devices: Vec<Loop> = parts.iter().map(device).collect::<Option<_>>()?;
        let seen: String = devices.iter().map(|device| format!("\"a|^{}$|\", ", device.0.display())).collect();
        let config = format!(
            "devices {{ scan = [ \"/dev\" ] filter = [ {seen}\"r|.*|\" ] use_devicesfile = 0 }}\n\
             global {{ locking_dir = \"{}\" use_lvmpolld = 0 activation = 0 event_activation = 0 }}\n\
             activation {{ udev_sync = 0 udev_rules = 0 monitoring = 0 }}\n\
             backup {{ backup = 0 archive = 0 }}\n",
            folder.join("lock").display()
        );
        fs::write(folder.join("lvm.conf"), config).unwrap();
        Some(Self { folder, raw, parts: parts.to_vec(), devices })
    }

    #[must_use]
    pub fn device(&self, index: usize) -> &str {
        self.devices[index].0.to_str().unwrap()
    }

    /// Runs a command, and returns its output.
    pub fn run(&self, line: &[&str]) -> String {
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).env("LVM_SYSTEM_DIR", self.folder).env("LVM_SUPPRESS_FD_WARNINGS", "1");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a group `vg-0` of all devices.
    pub fn group(&self, more: &[&str]) {
        let devices: Vec<&str> = (0..self.devices.len()).map(|index| self.device(index)).collect();
        self.run(&[&["pvcreate", "-q", "-y"], more, &devices].concat());
        self.run(&[&["vgcreate", "-q", "-y", "-s", "1m", "vg-0"], devices.as_slice()].concat());
    }

    /// Makes a volume of some extents in the group `vg-0`.
    pub fn create(&self, name: &str, extents: &str, more: &[&str]) {
        let line = ["lvcreate", "-q", "-y", "-an", "-Zn", "-Wn", "-l", extents, "-n", name, "vg-0"];
        self.run(&[&line, more].concat());
    }

    /// The pieces of linear volumes: for each, the partition, its first extent, and how many.
    #[must_use]
    pub fn pieces(&self) -> BTreeMap<String, Vec<(usize, u64, u64)>> {
        let options = "lv_name,seg_start_pe,seg_pe_ranges";
        let shown = self.run(&["lvs", "--noheadings", "--separator", ";", "-O", "lv_name,seg_start_pe", "-o", options]);
        let mut found = BTreeMap::<String, Vec<_>>::new();
        for line in shown.lines() {
            let fields: Vec<&str> = line.trim().split(';').collect();
            let (device, range) = fields[2].split_once(':').unwrap();
            let (first, last) = range.split_once('-').unwrap();
            let index = (0..self.devices.len()).find(|index| self.device(*index) == device).unwrap();
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            found.entry(fields[0].to_owned()).or_default().push((index, first, last + 1 - first));
        }
        found
    }

    /// Puts an image into a volume.
    pub fn fill(&self, name: &str, image: &Path) {
        let (bytes, raw) = (fs::read(image).unwrap(), File::options().write(true).open(self.raw).unwrap());
        let mut rest = bytes.as_slice();
        for (part, first, count) in &self.pieces()[name] {
            let start =
                self.run(&["pvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "pe_start", self.device(*part)]);
            let at = start.trim().parse::<u64>().unwrap() + first * EXTENT * MIB;
            let (piece, behind) = rest.split_at(usize::try_from(count * EXTENT * MIB).unwrap());
            raw.write_all_at(piece, self.parts[*part].0 + at).unwrap();
            rest = behind;
        }
        assert!(rest.is_empty(), "{name} is smaller than {} bytes", bytes.len());
    }
}
