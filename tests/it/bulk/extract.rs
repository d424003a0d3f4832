//! Extraction: the content of the target, whatever was there before, and the space that it occupies.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};

use vhdx_mmap::ops::{self, ExtractOptions, Reflink, Sparse, Target, TargetContent};
use vhdx_mmap::{Disk, Input as Of, OpenOptions, PageCachePolicy, ScanOptions};

use crate::kit::builder::Spec;
use crate::kit::{Block, Fill, MIB};
use crate::lab::{Rng, size, wide};
use crate::support::{map, temp_dir};

use super::hash::{plain, some_algorithms, texts};
use super::{Case, length_of, pool, some_range};

pub(super) fn agrees(case: &Case, rng: &mut Rng) {
    let range = some_range(&case.disk, rng);
    let tail = rng.pick(&[&b""[..], b"footer"]);
    let padding = rng.pick(&[0, 0, 512, 70_000]);
    let content = Of::disk(&case.disk).range(range.clone()).followed_by(padding, tail);
    let mut expected = case.content.read(range.clone());
    expected.resize(length_of(&range) + size(padding), 0);
    expected.extend_from_slice(tail);
    let algorithms = if rng.one_in(2) { some_algorithms(rng) } else { Vec::new() };
    let digests: Vec<_> = algorithms.iter().map(|algorithm| (*algorithm, plain(*algorithm, &expected))).collect();
    let options = ExtractOptions::new()
        .sparse(rng.pick(&[Sparse::None, Sparse::Blocks, Sparse::Zeros]))
        .reflink(rng.pick(&[Reflink::Auto, Reflink::Never]))
        .scan(ScanOptions::new().cache(rng.pick(&[
            PageCachePolicy::Keep,
            PageCachePolicy::Keep,
            PageCachePolicy::Drop,
        ])))
        .hash(algorithms);

    let before = rng.pick(&[TargetContent::Zeros, TargetContent::Anything]);
    let offset = rng.pick(&[0, 0, 4096, 513]);
    let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let around = wide(expected.len()) + offset + 5000;
    match before {
        TargetContent::Zeros => file.set_len(around).unwrap(),
        _ => file.write_all_at(&vec![0xEE; size(around)], 0).unwrap(),
    }
    let target = Target::new(&file, before).at(offset);
    let extracted = pool(rng).install(|| ops::extract_to_file(content, &target, &options)).unwrap();
    let mut found = vec![0; size(around)];
    file.read_exact_at(&mut found, 0).unwrap();
    let (head, rest) = found.split_at(size(offset));
    let (body, after) = rest.split_at(expected.len());
    let filler = if before == TargetContent::Zeros { 0 } else { 0xEE };
    assert!(head.iter().chain(after).all(|byte| *byte == filler), "bytes around the target were written to");
    assert!(body == expected, "{options:?} to {before:?} at {offset}");
    assert_eq!(extracted.data + extracted.zero, wide(expected.len()), "{extracted:?}");
    assert_eq!(texts(&extracted.digests), digests);

    streams(content, &expected, &options, rng);
}

/// Extracts to a pipe with an irregular reader, and to a vector.
fn streams(content: Of<'_>, expected: &[u8], options: &ExtractOptions<'_>, rng: &mut Rng) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let step = size(rng.pick(&[1 << 20, 65_536, 3001]));
    let (found, extracted) = std::thread::scope(|scope| {
        let found = scope.spawn(move || {
            let (mut all, mut buffer) = (Vec::new(), vec![0; step]);
            loop {
                match reader.read(&mut buffer).unwrap() {
                    0 => return all,
                    read => all.extend_from_slice(&buffer[..read]),
                }
            }
        });
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let extracted = pool(rng).install(|| ops::extract_to_stream(content, &file, options)).unwrap();
        drop(file);
        (found.join().unwrap(), extracted)
    });
    assert!(found == expected, "through a pipe");
    assert_eq!(extracted.data + extracted.zero, wide(expected.len()));
    let mut found = Vec::new();
    let again = pool(rng).install(|| ops::extract_to_writer(content, &mut found, options)).unwrap();
    assert!(found == expected, "to a vector");
    assert_eq!(again.digests, extracted.digests);
}

/// A disk of four blocks: bytes everywhere, bytes in the middle only, allocated zeros, and an unallocated block.
fn four_blocks() -> Spec {
    Spec::empty(4 * MIB)
        .block(0, Block::full())
        .block(1, Block::full().fill(Fill::Pieces(vec![(512 << 10, vec![7; 4096])])))
        .block(2, Block::full().fill(Fill::Pieces(Vec::new())))
}

/// Returns the space of a file on its medium, in KiB.
fn room(file: &File) -> u64 {
    file.metadata().unwrap().blocks() / 2
}

#[test]
fn zeros_become_holes_as_requested() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    let image = four_blocks().build();
    // Without holes, so that the file does not show where zeros are.
    std::fs::write(&path, image.bytes.to_vec()).unwrap();
    let disk = Disk::open(map(&path), &OpenOptions::new()).unwrap();
    for (sparse, expected) in [(Sparse::None, 4096), (Sparse::Blocks, 3072), (Sparse::Zeros, 1028)] {
        for before in [TargetContent::Zeros, TargetContent::Anything] {
            let file = tempfile::tempfile_in(folder.path()).unwrap();
            if before == TargetContent::Anything {
                file.write_all_at(&vec![0xEE; size(4 * MIB)], 0).unwrap();
            } else {
                file.set_len(4 * MIB).unwrap();
            }
            let options = ExtractOptions::new().sparse(sparse).reflink(Reflink::Never);
            ops::extract_to_file(Of::disk(&disk), &Target::new(&file, before), &options).unwrap();
            let mut found = vec![1; size(4 * MIB)];
            file.read_exact_at(&mut found, 0).unwrap();
            assert!(found == crate::lab::Expected::of(&[&image]).read(0..4 * MIB));
            file.sync_all().unwrap();
            // Some file systems use a block or two for themselves.
            let room = room(&file);
            assert!((expected..expected + 64).contains(&room), "{sparse:?} {before:?}: {room} KiB");
        }
    }
}

#[test]
fn direct_writes_write_the_same_bytes() {
    use std::os::unix::fs::OpenOptionsExt;

    let folder = temp_dir();
    let image = Spec { disk_size: 5 * MIB + 512, ..four_blocks().block(5, Block::full()) }.build();
    let path = folder.path().join("disk.vhdx");
    image.bytes.write_file(&path).unwrap();
    let disk = Disk::open(map(&path), &OpenOptions::new()).unwrap();
    let out = folder.path().join("out");
    let file = File::create_new(&out).unwrap();
    file.set_len(disk.size()).unwrap();
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap();
    let Ok(direct) = File::options().write(true).custom_flags(direct).open(&out) else {
        return crate::support::skip("direct", "this file system has no direct writes");
    };
    let target = Target::new(&file, TargetContent::Zeros).direct(Some(&direct));
    ops::extract_to_file(Of::disk(&disk), &target, &ExtractOptions::new()).unwrap();
    assert!(std::fs::read(&out).unwrap() == crate::lab::Expected::of(&[&image]).read(0..disk.size()));
}
