//! Disks of random bytes with the signatures of file systems: what is detected is some layout, without a panic.

use vhdx_mmap::{Disk, OpenOptions, ops};

use crate::kit::builder::Spec;
use crate::kit::{Block, Fill, KIB, MIB};
use crate::lab::{Rng, size, source};

/// Signatures, at offsets from the beginning of the disk.
const SIGNATURES: &[(usize, &[u8])] = &[
    (3, b"NTFS    "),
    (3, b"EXFAT   "),
    (82, b"FAT32   "),
    (54, b"FAT16   "),
    (3, b"ReFS\0\0\0\0"),
    (0, b"XFSB"),
    (0, b"LUKS\xba\xbe"),
    (0, b"hsqs"),
    (32, b"NXSB"),
    (1024, b"H+\0\x04"),
    (1024 + 56, b"\x53\xef"),
    (4096, b"gDla"),
    (4096, b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    (4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    (512, b"LABELONE"),
    (512 + 24, b"LVM2 001"),
    (0x3000, b"0PLA"),
    (0x4000 + 20, b"\0\0\0\x07version\0"),
    (0x1_0040, b"_BHRfS_M"),
    (510, b"\x55\xaa"),
];

/// Returns a number with some bits set, mostly a small one.
fn number(rng: &mut Rng) -> u64 {
    let bits = rng.below(64);
    rng.next() >> bits
}

#[test]
fn noise_with_signatures_is_some_layout() {
    let mut found = 0;
    for seed in 0..1000 {
        let mut rng = Rng::new(seed);
        let mut head = rng.bytes(size(128 * KIB));
        // Small numbers lead farther than random ones.
        for _ in 0..200 {
            let at = size(rng.below(wide_end(&head)));
            let bytes = number(&mut rng).to_le_bytes();
            head[at..at + 8].copy_from_slice(&bytes);
        }
        let (at, signature) = rng.pick(SIGNATURES);
        head[at..at + signature.len()].copy_from_slice(signature);
        if at == 512 {
            head[512 + 24..512 + 32].copy_from_slice(b"LVM2 001");
        }
        let spec = Spec::empty(2 * MIB).block(0, Block::full().fill(Fill::Pieces(vec![(0, head)])));
        let disk = Disk::open(source(&spec.build()), &OpenOptions::new()).unwrap();
        let layout = ops::detect(&disk).unwrap();
        found += u32::from(layout.volume.is_some());
    }
    assert!(found > 500, "only {found} volumes");
}

/// The end of the offsets at which a number fits.
fn wide_end(bytes: &[u8]) -> u64 {
    crate::lab::wide(bytes.len()) - 8
}
