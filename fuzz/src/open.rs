//! Headers, region tables and metadata of any content: the library opens what the naive reader opens, and nothing else.

use std::sync::Arc;

use arbitrary::Arbitrary;
use uuid::Uuid;
use vhdx_mmap::{Chain, Disk, ErrorKind, OpenOptions, Parents, Source};

use crate::bases::policies;
use crate::change::{Change, Places, Value, apply};
use crate::judge::{assert_same, look_at_everything, look_at_log, some_sectors};
use crate::kit::builder::{self, Body, Image, Locator, Spec};
use crate::kit::oracle::Oracle;
use crate::kit::{FileBytes, MIB, TIB};
use crate::scratch::mapped;

/// Description of an image.
#[derive(Arbitrary, Debug)]
pub struct Input {
    /// Unusual fields of both headers.
    headers: [Vec<(u8, Value)>; 2],
    /// Damaged copies of structures that exist twice, as bits.
    damaged: u8,
    regions: Option<Vec<Region>>,
    items: Vec<Item>,
    left_out: u8,
    block_size: Option<Value>,
    flags: u8,
    disk_size: Option<Value>,
    sector_size: Option<Value>,
    bat: Vec<(u8, u8)>,
    length: Length,
    ignores_log: bool,
    changes: Vec<Change>,
    mends_checksums: bool,
}

#[derive(Arbitrary, Debug)]
struct Region {
    id: u8,
    offset: Value,
    length: Value,
    is_required: bool,
}

#[derive(Arbitrary, Debug)]
struct Item {
    id: u8,
    flags: u8,
    place: Option<(Value, Value)>,
    body: [u8; 8],
}

#[derive(Arbitrary, Debug)]
enum Length {
    Usual,
    Mebibytes(u8),
    Tebibytes(u8),
}

/// Fields of a header: offset and width.
const FIELDS: [(u64, usize); 9] = [(8, 8), (16, 8), (32, 8), (48, 8), (56, 8), (64, 2), (66, 2), (68, 4), (72, 8)];

const BAT: u64 = 3 * MIB;

impl Input {
    fn spec(&self) -> Spec {
        let mut spec = Spec::empty(8 * MIB);
        let known = [
            builder::FILE_PARAMETERS,
            builder::DISK_SIZE,
            builder::DISK_ID,
            builder::LOGICAL_SECTOR,
            builder::PHYSICAL_SECTOR,
            builder::PARENT_LOCATOR,
            builder::INCOMPLETE_FILE,
        ];
        let block_size = match self.block_size {
            None => MIB,
            Some(Value::Small(shift)) => MIB << (shift % 12),
            Some(value) => value.number(),
        };
        let parameters = [(block_size as u32).to_le_bytes(), u32::from(self.flags).to_le_bytes()].concat();
        let sector_size = match self.sector_size {
            None => 512,
            Some(Value::Small(number)) => [512, 4096][usize::from(number % 2)],
            Some(value) => value.number(),
        };
        let disk_size = match self.disk_size {
            None => 8 * MIB,
            Some(Value::Small(shift)) => MIB << (shift % 30),
            Some(value) => value.number(),
        };
        spec.item(builder::FILE_PARAMETERS).body = Body::Bytes(parameters);
        spec.item(builder::DISK_SIZE).body = Body::Bytes(disk_size.to_le_bytes().to_vec());
        spec.item(builder::LOGICAL_SECTOR).body = Body::Bytes(sector_size.to_le_bytes()[..4].to_vec());
        if self.flags & 4 == 0 {
            spec.locator = Some(Locator::linked_to(Uuid::from_u128(0xDA7A), "parent"));
        }
        for (number, id) in known.iter().enumerate().take(6) {
            if self.left_out >> number & 1 == 1 {
                spec.omit(*id);
            }
        }
        for item in self.items.iter().take(40) {
            let id = known.get(usize::from(item.id)).copied().unwrap_or(Uuid::from_u128(item.id.into()));
            let mut new = builder::Item::new(id, item.flags.into(), &item.body);
            if let Some((offset, length)) = item.place {
                (new.offset, new.length) = (Some(offset.number() as u32), Some(length.number() as u32));
            }
            spec.items.push(new);
        }
        if let Some(regions) = &self.regions {
            let id = |number: u8| match number {
                0 => builder::BAT_REGION,
                1 => builder::METADATA_REGION,
                _ => Uuid::from_u128(number.into()),
            };
            let region = |region: &Region| builder::Region {
                guid: id(region.id),
                offset: region.offset.number(),
                length: region.length.number() as u32,
                required: region.is_required.into(),
            };
            spec.regions = Some(regions.iter().take(80).map(region).collect());
        }
        spec
    }

    fn build(&self) -> Image {
        let mut image = self.spec().build();
        for (number, (state, place)) in self.bat.iter().enumerate().take(64) {
            let entry = u64::from(*place) << 20 | u64::from(*state);
            image.bytes.write(BAT + number as u64 * 8, &entry.to_le_bytes());
        }
        for (copy, fields) in [1, 2].into_iter().zip(&self.headers) {
            for (field, value) in fields {
                let (at, width) = FIELDS[usize::from(*field) % FIELDS.len()];
                image.patch_header(copy, at, &value.number().to_le_bytes()[..width]);
            }
        }
        let length = match self.length {
            Length::Usual => 9 * MIB,
            Length::Mebibytes(number) => u64::from(number) * MIB + 512,
            Length::Tebibytes(number) => u64::from(number % 70) * TIB + 8 * MIB,
        };
        image.bytes.truncate(length);
        let places = Places { log: MIB as usize, metadata: 2 << 20, bat: 3 << 20, bitmap: 4 << 20 };
        apply(&mut image.bytes, &places, &self.changes, self.mends_checksums);
        for (number, at) in [0x1_0010, 0x2_0010, 0x3_0010, 0x4_0010].into_iter().enumerate() {
            if self.damaged >> number & 1 == 1 {
                image.bytes.write(at, &[0x5A]);
            }
        }
        image
    }
}

pub fn run(input: &Input) {
    let image = input.build();
    let (policy, oracle_policy) = policies(input.ignores_log);
    look_at_log(mapped(&image.bytes));
    // A search that finds no parent, after the locator was read to its end.
    let no_parent = Parents::With(Arc::new(|_| Ok(None)));
    let opened = Chain::open(mapped(&image.bytes), &OpenOptions::new().log_policy(policy).parents(no_parent));
    if let Ok(chain) = &opened {
        look_at_everything(chain);
        // An image in memory gives the same results.
        if image.bytes.len() < 64 * MIB {
            let copy = Source::from_vec(image.bytes.to_vec());
            let copy = Chain::open(copy, &OpenOptions::new().log_policy(policy)).expect("an image that opens");
            assert_eq!(
                format!("{:?}", Disk::so_far(&copy).warnings().collect::<Vec<_>>()),
                format!("{:?}", own_warnings(chain))
            );
        }
        // The naive reader goes through a log bit by bit: too slow for one of many MiB.
        if Disk::so_far(chain).image().header().log_length > 16 << 20 && !input.ignores_log {
            return;
        }
    }
    let opened = opened.and_then(|chain| match chain.broken().map(vhdx_mmap::Error::kind) {
        None | Some(ErrorKind::ParentNotFound { .. }) => Ok(chain),
        Some(_) => Err(vhdx_mmap::Disk::from_chain(&chain).expect_err("a broken chain")),
    });
    let files: [&dyn FileBytes; 1] = [&image.bytes];
    match (opened, Oracle::open(&files, oracle_policy)) {
        (Ok(chain), Ok(oracle)) => {
            let disk = &Disk::so_far(&chain);
            assert_same(disk, &oracle, some_sectors(disk));
        }
        (Err(_), Err(_)) => {}
        (Ok(_), Err(fault)) => panic!("opened, but the naive reader says {fault:?}"),
        (Err(error), Ok(_)) => panic!("the naive reader opens what is refused: {error}"),
    }
}

/// Returns the warnings about the image alone, without those of the search for its parent.
fn own_warnings(chain: &Chain) -> Vec<(usize, &vhdx_mmap::Warning)> {
    chain.layers()[0].image().warnings().iter().map(|warning| (0, warning)).collect()
}
