//! Members of a RAID of level 1. Superblocks are written here, and `mdadm --examine` says whether they are right.

use std::fs;
use std::path::Path;
use std::process::Command;

use vhdx_testkit::MIB;
use vhdx_testkit::lab::Rng;
use vhdx_testkit::support::{skip, temp_dir};

use super::damage::fill_little;
use super::lab::Lab;
use super::parts::{Image, Parts, holds, ranges, refusal};

/// Size of a member, in MiB.
const SIZE: u64 = 16;

/// Sectors before the content, where it does not begin at once.
const BEFORE: u64 = 2048;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V0,
    V1(u32),
}

const ALL: [Version; 4] = [Version::V0, Version::V1(0), Version::V1(1), Version::V1(2)];

/// A superblock, and where it and the content lie in a member.
struct Superblock {
    version: Version,
    bytes: Vec<u8>,
    at: u64,
    content: u64,
}

impl Superblock {
    /// That of a clean array of two members with both in sync, of which this is the first.
    fn new(version: Version, content_size: u64) -> Self {
        let size = SIZE * MIB;
        let (at, content) = match version {
            Version::V0 => (size - 0x1_0000, 0),
            Version::V1(0) => ((size - 0x2000) & !0xfff, 0),
            Version::V1(1) => (0, BEFORE * 512),
            Version::V1(_) => (4096, BEFORE * 512),
        };
        let mut new = Self { version, bytes: vec![0; 4096], at, content };
        new.u32(0, 0xa92b_4efc);
        if version == Version::V0 {
            for (word, value) in [(2, 90), (4, 224), (5, 0x0102_0304), (6, 1_700_000_000), (7, 1), (9, 2), (10, 2)] {
                new.u32(word * 4, value);
            }
            new.u32(8 * 4, u32::try_from(content_size / 1024).unwrap());
            for (word, value) in [(13, 0x0506_0708), (14, 0x090a_0b0c), (15, 0x0d0e_0f10), (32, 1_700_000_100), (33, 1)]
            {
                new.u32(word * 4, value);
            }
            for (word, value) in [(34, 2), (35, 2), (39, 17), (41, 17), (43, u32::MAX)] {
                new.u32(word * 4, value);
            }
            for member in 0..2 {
                for (word, value) in [(0, member), (1, 8), (2, member * 16), (3, member), (4, 6)] {
                    new.u32(usize::try_from(128 + member * 32 + word).unwrap() * 4, value);
                }
            }
            for (word, value) in [(0, 0), (1, 8), (3, 0), (4, 6)] {
                new.u32((992 + word) * 4, value);
            }
        } else {
            new.u32(4, 1);
            new.bytes[16..32].copy_from_slice(b"0123456789abcdef");
            new.bytes[32..38].copy_from_slice(b"host:0");
            new.u64(64, 1_700_000_000);
            new.u32(72, 1);
            new.u64(80, content_size / 512);
            new.u32(92, 2);
            new.u64(128, content / 512);
            let behind = if content == 0 { at / 512 } else { size / 512 - BEFORE };
            new.u64(136, behind);
            new.u64(144, at / 512);
            new.bytes[168..184].copy_from_slice(b"fedcba9876543210");
            new.u64(192, 1_700_000_100);
            new.u64(200, 17);
            new.u64(208, u64::MAX);
            new.u32(220, 128);
            new.bytes[256..512].fill(0xff);
            new.roles(&[0, 1]);
        }
        new.sign();
        new
    }

    fn u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn roles(&mut self, roles: &[u16]) {
        for (at, role) in (256..).step_by(2).zip(roles) {
            self.bytes[at..at + 2].copy_from_slice(&role.to_le_bytes());
        }
    }

    fn sign(&mut self) {
        let (at, length) = match self.version {
            Version::V0 => (152, 4096),
            Version::V1(_) => {
                let most = u32::from_le_bytes(self.bytes[220..224].try_into().unwrap());
                (216, 4096.min(256 + 2 * usize::try_from(most).unwrap()))
            }
        };
        self.u32(at, 0);
        let sum = self.bytes[..length]
            .chunks(4)
            .fold(0_u64, |sum, word| sum + word.iter().rev().fold(0_u64, |word, byte| (word << 8) | u64::from(*byte)));
        self.u32(at, u32::try_from(((sum & 0xffff_ffff) + (sum >> 32)) & 0xffff_ffff).unwrap());
    }

    fn changed(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut other = Self { bytes: self.bytes.clone(), ..*self };
        change(&mut other);
        other.sign();
        other
    }

    fn put(&self, parts: &Parts, part: usize) {
        parts.write(part, self.at, &self.bytes);
    }

    fn put_into(&self, image: &Image) {
        image.write(0, usize::try_from(self.at).unwrap(), &self.bytes);
    }
}

/// What `mdadm` says about a member.
fn examined(folder: &Path, parts: &Parts) -> Option<String> {
    let member = folder.join("member.raw");
    fs::write(&member, parts.read(0)).unwrap();
    let Ok(output) = Command::new("mdadm").arg("--examine").arg(&member).output() else {
        skip("mdadm", "mdadm is not there");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// A member with a file system of 8 MiB.
fn made(folder: &Path, version: Version, members: usize) -> Option<(Parts, Superblock, Lab)> {
    let lab = Lab::new(&["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^has_journal"], 8)?;
    fill_little(&lab.mount("")?.0);
    let parts = Parts::new(folder, &vec![SIZE; members]);
    let superblock = Superblock::new(version, 8 * MIB);
    for part in 0..members {
        parts.write(part, superblock.content, &fs::read(&lab.raw).unwrap());
        superblock.put(&parts, part);
    }
    Some((parts, superblock, lab))
}

#[test]
fn members_of_all_versions() {
    for version in ALL {
        let folder = temp_dir();
        let Some((parts, superblock, lab)) = made(folder.path(), version, 1) else { return };
        let Some(said) = examined(folder.path(), &parts) else { return };
        for expected in ["raid1", "- correct", "Raid Devices : 2", "clean"] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        if superblock.content > 0 {
            assert!(said.contains("Data Offset : 2048 sectors"), "{said}");
        }
        let places = parts.places();
        assert_eq!(places.len(), 1);
        let place = &places[0];
        assert!(place.is_readable(), "{place:?}");
        assert!(holds(place.storage.as_ref().unwrap(), &lab.raw));
        let note = place.note.as_ref().unwrap();
        assert!(note.contains("2 members") && note.contains("2023-11-14T22:15:00Z (17 events)"), "{note}");
        assert!(!note.contains("in use"));
        let volume = vhdx_files::open(place.storage.as_ref().unwrap().clone()).unwrap();
        assert!(vhdx_files::lookup(&*volume, b"/a/b/c/d/deep").is_ok());
    }
}

/// A change of a superblock of version 0.90, the same of the others, and why a member with it is refused.
type Case = (&'static str, Change, Change);

type Change = fn(&mut Superblock);

#[test]
fn members_without_the_content_are_refused() {
    const STATE: usize = (128 + 4) * 4;
    let both: [Case; 8] = [
        ("spare", |it| it.u32(STATE, 0), |it| it.roles(&[0xffff, 1])),
        ("faulty", |it| it.u32(STATE, 1), |it| it.roles(&[0xfffe, 1])),
        ("not in sync", |it| it.u32(STATE, 2), |it| it.u32(8, 2)),
        ("reshaped", |it| it.u32(8, 91), |it| it.u32(8, 4)),
        ("RAID 5", |it| it.u32(28, 5), |it| it.u32(72, 5)),
        ("RAID 0", |it| it.u32(28, 0), |it| it.u32(72, 0)),
        ("linear", |it| it.u32(28, u32::MAX), |it| it.u32(72, u32::MAX)),
        ("larger than its member", |it| it.u32(32, 16 << 10), |it| it.u64(80, 1 << 40)),
    ];
    let ones: [(&str, Change); 6] = [
        ("bad blocks", |it| it.u32(8, 8)),
        ("journal", |it| it.roles(&[0xfffd, 1])),
        ("features 0x1000", |it| it.u32(8, 0x1000)),
        ("another place", |it| it.u64(144, 5)),
        ("past its partition", |it| it.u64(128, u64::MAX)),
        ("too long", |it| it.u32(220, 10_000)),
    ];
    for version in ALL {
        let folder = temp_dir();
        let Some((parts, superblock, _)) = made(folder.path(), version, 1) else { return };
        let image = parts.image();
        let check = |why: &str, change: Change| {
            superblock.changed(change).put_into(&image);
            let refusal = refusal(&image.places()[0]);
            assert!(refusal.contains(why), "{why}: {refusal}");
        };
        for (why, change_0, change_1) in both {
            check(why, if version == Version::V0 { change_0 } else { change_1 });
        }
        for (why, change) in ones.into_iter().filter(|_| version != Version::V0) {
            check(why, change);
        }
        superblock.put_into(&image);
        assert!(image.places()[0].is_readable());
    }
}

#[test]
fn notes_about_arrays() {
    for version in ALL {
        let folder = temp_dir();
        let Some((parts, superblock, _)) = made(folder.path(), version, 1) else { return };
        let is_0 = version == Version::V0;
        let in_use = superblock.changed(|it| if is_0 { it.u32(33 * 4, 0) } else { it.u64(208, 0) });
        in_use.put(&parts, 0);
        let Some(said) = examined(folder.path(), &parts) else { return };
        assert!(said.contains("active"), "{said}");
        assert!(parts.places()[0].note.as_ref().unwrap().contains("members may differ"));
        // The other one is gone: this is the newest.
        let alone = superblock.changed(|it| if is_0 { it.u32((160 + 4) * 4, 8) } else { it.roles(&[0, 0xfffe]) });
        alone.put(&parts, 0);
        let Some(said) = examined(folder.path(), &parts) else { return };
        assert!(said.contains("A.") || said.contains("removed"), "{said}");
        assert_eq!(parts.places()[0].note, None);
    }
}

/// Of two members on one disk, the one that was in its array longer.
#[test]
fn the_newer_of_two_members() {
    for version in ALL {
        let folder = temp_dir();
        let Some((parts, superblock, _)) = made(folder.path(), version, 2) else { return };
        let newer = superblock.changed(|it| match version {
            Version::V0 => it.u32(39 * 4, 18),
            Version::V1(_) => it.u64(200, 18),
        });
        newer.put(&parts, 1);
        let places = parts.places();
        assert!(refusal(&places[0]).contains("partition 2 is a member of the same array"), "{}", refusal(&places[0]));
        assert!(places[1].is_readable());
        newer.put(&parts, 0);
        let places = parts.places();
        assert!(places[0].is_readable() && !places[1].is_readable());
    }
}

/// Bytes of a superblock changed, with and without its checksum.
#[test]
fn damaged() {
    for version in ALL {
        let folder = temp_dir();
        let Some((parts, superblock, _)) = made(folder.path(), version, 1) else { return };
        let (image, mut rng) = (parts.image(), Rng::new(5));
        let expected = ranges(image.places()[0].storage.as_ref().unwrap());
        let (length, step) = if version == Version::V0 { (4096, 29) } else { (512, 3) };
        for at in (8..length).step_by(step) {
            let byte = superblock.bytes[at] ^ (1 << rng.below(8));
            let mut other = superblock.changed(|it| it.bytes[at] = byte);
            other.put_into(&image);
            for place in image.places().iter().filter(|place| place.is_readable()) {
                let _ = vhdx_files::open(place.storage.as_ref().unwrap().clone());
            }
            other.bytes.clone_from(&superblock.bytes);
            other.bytes[at] = byte;
            other.put_into(&image);
            for place in image.places().iter().filter(|place| place.is_readable()) {
                assert_eq!(ranges(place.storage.as_ref().unwrap()), expected, "byte {at}");
            }
        }
    }
}
