//! File systems that are damaged: every call ends, and none panics.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use vhdx_files::{Error, FileKind, Volume};
use vhdx_testkit::lab::Rng;
use vhdx_testkit::optional;

use super::lab::Made;

/// Size of what is damaged at once: a page of structures.
const PAGE: usize = 4096;

/// Most files that are looked at in one volume.
const MOST_FILES: usize = 3000;

/// Repairs the checksums of a page of structures that was damaged, so that the damage is believed.
pub(crate) type Repair = fn(&mut [u8]);

/// An image whose disk is damaged in place, again and again.
pub(crate) struct Victim {
    raw: Vec<u8>,
    image: Made,
    /// Offsets of the pages that are damaged.
    pages: Vec<usize>,
    repair: Repair,
}

impl Victim {
    /// `is_structure` chooses the pages to damage, among those that are not empty.
    pub(crate) fn new(raw: &Path, is_structure: impl Fn(&[u8]) -> bool, repair: Repair) -> Self {
        let image = Made::of(raw);
        let raw = fs::read(raw).unwrap();
        let is_used = |page: &[u8]| page.iter().any(|byte| *byte != 0) && is_structure(page);
        let pages = raw.chunks(PAGE).enumerate().filter(|(_, page)| is_used(page)).map(|(index, _)| index * PAGE);
        let pages: Vec<usize> = pages.collect();
        assert!(pages.len() > 1, "nothing to damage");
        Self { raw, image, pages, repair }
    }

    /// Damages it in many ways, and uses what is left.
    pub(crate) fn suffer(&self, rounds: usize) {
        let rounds = optional::rounds(rounds);
        let (mut opened, mut seen) = (0, 0);
        for seed in 0..rounds {
            let mut rng = Rng::new(u64::try_from(seed).unwrap());
            let pages: Vec<usize> = (0..=rng.below(2)).map(|_| rng.pick(&self.pages)).collect();
            for at in &pages {
                let mut page = self.page(*at).to_vec();
                damage(&mut page, &mut rng);
                (self.repair)(&mut page);
                self.image.write(*at, &page);
            }
            if let Ok(volume) = self.image.open() {
                opened += 1;
                seen += use_all(&*volume);
            }
            for at in &pages {
                self.image.write(*at, self.page(*at));
            }
        }
        assert!(opened > rounds / 4, "{opened} of {rounds} could be opened");
        assert!(seen > 0);
    }

    fn page(&self, at: usize) -> &[u8] {
        &self.raw[at..self.raw.len().min(at + PAGE)]
    }
}

fn damage(bytes: &mut [u8], rng: &mut Rng) {
    const WORDS: [u32; 8] = [0, 1, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX, 4096];
    for _ in 0..=rng.below(4) {
        let Some(last) = bytes.len().checked_sub(4) else { return };
        let at = usize::try_from(rng.below(u64::try_from(last + 1).unwrap())).unwrap();
        match rng.below(4) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.bytes(1)[0],
            2 => bytes[at & !3..][..4].copy_from_slice(&rng.pick(&WORDS).to_le_bytes()),
            _ => bytes[at & !3..][..4].copy_from_slice(&rng.pick(&WORDS).swap_bytes().to_le_bytes()),
        }
    }
}

/// Uses every call for every file that can be reached, and returns how many files that are.
pub(crate) fn use_all(volume: &dyn Volume) -> usize {
    let mut known = HashSet::from([volume.root()]);
    let mut todo = vec![volume.root()];
    let mut bytes = vec![0; 65_536];
    while let Some(node) = todo.pop() {
        let metadata = volume.metadata(node);
        let _ = volume.attributes(node);
        let _ = volume.link_target(node);
        if let Ok(content) = volume.open(node, None) {
            let size = content.size();
            for offset in [0, size / 2, size.saturating_sub(1000)] {
                if let Ok(read) = content.read_at(&mut bytes, offset) {
                    assert_eq!(u64::try_from(read).unwrap(), size.saturating_sub(offset).min(65_536));
                }
            }
            let mut offset = 0;
            while let Some((length, _)) = content.run_at(offset) {
                assert!(length > 0);
                offset += length;
            }
            assert_eq!(offset, size);
        }
        match volume.entries(node) {
            Ok(entries) => {
                for entry in entries {
                    let _ = volume.find(node, &entry.name);
                    if known.len() < MOST_FILES && known.insert(entry.node) {
                        todo.push(entry.node);
                    }
                }
            }
            Err(Error::NotDirectory(_)) => {
                assert!(metadata.map_or(true, |metadata| metadata.kind != FileKind::Directory));
            }
            Err(_) => {}
        }
    }
    known.len()
}

/// Fills a folder with a few files of every kind: not much content, so that most of the file system is structures.
pub(crate) fn fill_little(tree: &Path) {
    let write = |name: &str, bytes: &[u8]| fs::write(tree.join(name), bytes).unwrap();
    write("empty", b"");
    write("small", b"small");
    write("text", &b"a text that can be compressed ".repeat(3000));
    let many = tree.join("many");
    fs::create_dir(&many).unwrap();
    for number in 0..400 {
        fs::write(many.join(format!("a file with a name {number:06}")), format!("{number}")).unwrap();
    }
    fs::create_dir_all(tree.join("a/b/c/d")).unwrap();
    fs::write(tree.join("a/b/c/d/deep"), b"deep").unwrap();
    std::os::unix::fs::symlink("small", tree.join("link")).unwrap();
    std::os::unix::fs::symlink("far/".repeat(200), tree.join("long link")).unwrap();
    fs::hard_link(tree.join("small"), tree.join("second name")).unwrap();
    let set = |name: &str, attribute: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(tree.join(name), attribute, value, flags).unwrap();
    };
    set("small", "user.short", b"value");
    set("text", "user.long", &[7; 1500]);
    // Pieces and holes.
    let sparse = File::create(tree.join("sparse")).unwrap();
    for piece in 0..40 {
        sparse.write_all_at(&[1; 100], piece * 50_000).unwrap();
    }
    sparse.set_len(5 << 20).unwrap();
}
