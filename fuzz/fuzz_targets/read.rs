//! Images with changes in their structures: what opens must read as the naive reader reads it.
#![no_main]

use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vhdx_mmap::{Disk, LogPolicy, OpenOptions, ParentRequest, Parents, Source, ops};

#[path = "../../tests/it/kit/mod.rs"]
mod kit;

use kit::builder::Spec;
use kit::log::Dirty;
use kit::oracle::{self, Oracle};
use kit::{Block, FileBytes, MIB};

/// A change to an image: eight bytes or fewer, somewhere in a structure.
#[derive(Arbitrary, Debug)]
struct Change {
    place: Place,
    at: u16,
    value: Value,
    width: u8,
}

#[derive(Arbitrary, Debug)]
enum Place {
    Header(bool),
    RegionTable(bool),
    Metadata,
    MetadataItems,
    Bat,
    Log,
    Bitmap,
    Anywhere(u32),
}

#[derive(Arbitrary, Debug)]
enum Value {
    Any(u64),
    Mebibytes(u8, u8),
    Small(u8),
    Ones,
}

#[derive(Arbitrary, Debug)]
struct Input {
    base: u8,
    ignore_log: bool,
    mend_checksums: bool,
    cut: Option<u32>,
    changes: Vec<Change>,
}

struct Base {
    image: Vec<u8>,
    log: u64,
    metadata: u64,
    bat: u64,
    bitmap: u64,
    parent: Option<Vec<u8>>,
}

static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
    let small = || Spec { disk_size: 3 * MIB, ..Spec::empty(3 * MIB) }.block(0, Block::full()).block(2, Block::full());
    let parent = small();
    let sectors = [3..40, 64..65, 2000..2048];
    let child = Spec::child_of(&parent, "parent").block(1, Block::partial(&sectors)).block(2, Block::zero());
    let base = |image: kit::builder::Image, parent: Option<&Spec>| Base {
        log: image.spec.log_offset,
        metadata: image.spec.metadata_offset,
        bat: image.spec.bat_offset,
        bitmap: if parent.is_some() { image.bitmap_at(0) } else { 0 },
        parent: parent.map(|parent| parent.build().bytes.to_vec()),
        image: image.bytes.to_vec(),
    };
    let dirty = Dirty::ALL.iter().map(|dirty| base(dirty.build(&small()), None));
    let mut bases = vec![base(small().build(), None), base(child.build(), Some(&parent))];
    bases.extend(dirty);
    bases.push(base(Dirty::ManyEntries.build(&child), Some(&parent)));
    bases
});

fn apply(base: &Base, input: &Input) -> Vec<u8> {
    let mut bytes = base.image.clone();
    for change in &input.changes {
        let at = usize::from(change.at);
        let start = match change.place {
            Place::Header(second) => 0x1_0000 + usize::from(second) * 0x1_0000 + at % 128,
            Place::RegionTable(second) => 0x3_0000 + usize::from(second) * 0x1_0000 + at % 128,
            Place::Metadata => base.metadata as usize + at % 320,
            Place::MetadataItems => base.metadata as usize + 0x1_0000 + at % 2048,
            Place::Bat => base.bat as usize + at % 64,
            Place::Log => base.log as usize + at * 16,
            Place::Bitmap => base.bitmap as usize + at % 512,
            Place::Anywhere(at) => at as usize,
        };
        let value = match change.value {
            Value::Any(value) => value,
            Value::Mebibytes(number, low) => u64::from(number) << 20 | u64::from(low),
            Value::Small(value) => value.into(),
            Value::Ones => u64::MAX,
        };
        let width = usize::from(change.width % 8) + 1;
        if let Some(target) = bytes.get_mut(start..start + width) {
            target.copy_from_slice(&value.to_le_bytes()[..width]);
        }
    }
    if input.mend_checksums {
        mend(&mut bytes, base.log as usize);
    }
    if let Some(cut) = input.cut {
        bytes.truncate(cut as usize);
    }
    bytes
}

/// Makes every checksum right again: of headers, region tables, and all that begins like a log entry.
fn mend(bytes: &mut [u8], log: usize) {
    let mut seal = |start: usize, length: usize| {
        let Some(structure) = bytes.get_mut(start..start.saturating_add(length)).filter(|found| found.len() >= 8) else {
            return;
        };
        structure[4..8].fill(0);
        let crc = crc32c::crc32c(structure);
        structure[4..8].copy_from_slice(&crc.to_le_bytes());
    };
    seal(0x1_0000, 4096);
    seal(0x2_0000, 4096);
    seal(0x3_0000, 0x1_0000);
    seal(0x4_0000, 0x1_0000);
    for start in (log..log + (1 << 20)).step_by(4096) {
        let Some(head) = bytes.get(start..start + 12).filter(|head| head.starts_with(b"loge")) else { continue };
        let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let Some(entry) = bytes.get_mut(start..start.saturating_add(length)).filter(|entry| entry.len() >= 8) else {
            continue;
        };
        entry[4..8].fill(0);
        let crc = crc32c::crc32c(entry);
        entry[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

fuzz_target!(|input: Input| {
    let base = &BASES[usize::from(input.base) % BASES.len()];
    let bytes = apply(base, &input);
    let parent = base.parent.clone();
    let finder = move |_: &ParentRequest<'_>| Ok(parent.clone().map(Source::from_vec));
    let log_policy = if input.ignore_log { LogPolicy::Ignore } else { LogPolicy::Replay };
    let options = OpenOptions::new().log_policy(log_policy).parents(Parents::With(Arc::new(finder)));
    let Ok(disk) = Disk::open(Source::from_vec(bytes.clone()), &options) else { return };

    // Nothing of this may panic, whatever it finds.
    let _ = ops::contents(&disk);
    let _ = disk.image().block_states();
    let extents = disk.extents(..).take(10_000).filter(Result::is_ok).count();
    let segments = disk.segments(..).take(10_000).filter(Result::is_ok).count();
    assert!(extents <= 10_000 && segments <= 10_000);

    let policy = if input.ignore_log { oracle::LogPolicy::Ignore } else { oracle::LogPolicy::Replay };
    let mut chain: Vec<&dyn FileBytes> = vec![&bytes];
    chain.extend(base.parent.as_ref().map(|parent| parent as &dyn FileBytes));
    let oracle = match Oracle::open(&chain, policy) {
        Ok(oracle) => oracle,
        Err(fault) => panic!("opened, but the naive reader says {fault:?}"),
    };
    assert_eq!(disk.size(), oracle.size());
    // The first 4 MiB, and the end.
    let sector = u64::from(oracle.sector_size());
    let starts = (0..disk.size().min(4 * MIB)).step_by(sector as usize * 7).chain(disk.size().checked_sub(sector));
    for start in starts {
        let mut found = vec![0; sector as usize];
        let read = disk.read_at(start, &mut found);
        match (read, oracle.read(start, sector as usize)) {
            (Ok(length), Ok(expected)) => assert_eq!(found[..length], expected[..], "at {start}"),
            // The library is finer in what of a broken block it can still read, and stricter about bitmaps that lie where
            // something else is.
            (Ok(_), Err(_)) | (Err(_), _) => {}
        }
    }
});
