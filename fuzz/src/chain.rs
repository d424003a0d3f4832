//! Chains of any shape, and parent locators of any bytes: only a real parent is accepted, and circles come to an end.

use std::sync::Arc;

use arbitrary::Arbitrary;
use uuid::Uuid;
use vhdx_mmap::{Chain, Disk, ErrorKind, MAX_PARENTS, OpenOptions, ParentRequest, Parents, Source};

use crate::judge::{assert_same, look_at_everything, some_sectors};
use crate::kit::builder::{Image, Locator, Spec, VHDX_LOCATOR};
use crate::kit::oracle::{LogPolicy, Oracle};
use crate::kit::{Block, FileBytes, Fill, KIB, MIB, pattern};
use crate::scratch::mapped;

/// Some images, and the results of the searches.
#[derive(Arbitrary, Debug)]
pub struct Input {
    images: Vec<Layer>,
    /// Image that is found for each layer, by number; none if the image does not exist.
    found: Vec<u8>,
    /// Whether the last image is found again and again after those.
    goes_on: bool,
    /// Whether the images are files, which can be distinguished.
    is_mapped: bool,
}

#[derive(Arbitrary, Debug)]
struct Layer {
    is_base: bool,
    identity: u8,
    locator: How,
    is_4k: bool,
    block_shift: u8,
    size: u8,
    states: [State; 2],
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum State {
    Absent,
    Zero,
    Full,
    Partial(u8, u8),
}

/// The parent locator.
#[derive(Arbitrary, Debug)]
enum How {
    Linked(Form, u8),
    Both(Form, u8, Form, u8),
    Pairs(Vec<(Text, Text)>),
    Raw { is_known: bool, count: u16, entries: Vec<[u16; 4]>, strings: Vec<u8> },
    None,
}

/// Notation of a GUID.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Form {
    Usual,
    Upper,
    Bare,
    WithoutHyphens,
    Cut(u8),
    OtherBraces,
    Urn,
    Changed(u8, char),
}

#[derive(Arbitrary, Debug)]
enum Text {
    Linkage,
    Linkage2,
    RelativePath,
    AbsolutePath,
    VolumePath,
    Identity(Form, u8),
    Any(String),
    Long(u16),
}

/// Makes the DataWriteGuid for a number: 0 is nil.
fn identity(number: u8) -> Uuid {
    Uuid::from_u128(u128::from(number % 6) * 0xDA7A_0001_ABCD_0001)
}

impl Form {
    fn write(self, number: u8) -> String {
        let guid = identity(number);
        let usual = format!("{{{guid}}}");
        match self {
            Self::Usual => usual,
            Self::Upper => usual.to_uppercase(),
            Self::Bare => guid.to_string(),
            Self::WithoutHyphens => guid.simple().to_string(),
            Self::Cut(length) => usual.chars().take(usize::from(length)).collect(),
            Self::OtherBraces => format!("({guid})"),
            Self::Urn => format!("urn:uuid:{guid}"),
            Self::Changed(at, to) => {
                let at = usize::from(at) % usual.len();
                usual.chars().enumerate().map(|(index, old)| if index == at { to } else { old }).collect()
            }
        }
    }
}

impl Text {
    fn write(&self) -> String {
        let text = match self {
            Self::Linkage => "parent_linkage",
            Self::Linkage2 => "parent_linkage2",
            Self::RelativePath => "relative_path",
            Self::AbsolutePath => "absolute_win32_path",
            Self::VolumePath => "volume_path",
            Self::Identity(form, number) => return form.write(*number),
            Self::Any(text) => return text.chars().take(200).collect(),
            Self::Long(length) => return "x".repeat(usize::from(*length / 2)),
        };
        text.to_owned()
    }
}

impl How {
    fn locator(&self) -> Option<Locator> {
        let linked = |form: Form, number| {
            let mut locator = Locator::linked_to(identity(number), "parent");
            locator.set("parent_linkage", &form.write(number));
            locator
        };
        Some(match self {
            Self::None => return None,
            Self::Linked(form, number) => linked(*form, *number),
            Self::Both(form, number, form2, number2) => {
                let mut locator = linked(*form, *number);
                locator.set("parent_linkage2", &form2.write(*number2));
                locator
            }
            Self::Pairs(pairs) => {
                let pairs = pairs.iter().take(40).map(|(key, value)| (key.write(), value.write()));
                Locator::Pairs(VHDX_LOCATOR, pairs.collect())
            }
            Self::Raw { is_known, count, entries, strings } => {
                let kind = if *is_known { VHDX_LOCATOR } else { identity(1) };
                let mut raw = kind.to_bytes_le().to_vec();
                raw.extend([0, 0]);
                raw.extend(count.to_le_bytes());
                for [key, value, key_length, value_length] in entries {
                    raw.extend([u32::from(*key), u32::from(*value)].map(u32::to_le_bytes).concat());
                    raw.extend([*key_length, *value_length].map(u16::to_le_bytes).concat());
                }
                raw.extend(strings);
                Locator::Raw(raw)
            }
        })
    }
}

impl Layer {
    fn build(&self, number: usize) -> Image {
        let size = [MIB + 64 * KIB, MIB, 2 * MIB, 0][usize::from(self.size % 4)];
        let sector_size = if self.is_4k { 4096 } else { 512 };
        let mut spec = Spec {
            seed: number as u64 + 1,
            data_write_guid: identity(self.identity),
            block_size: 1 << (20 + self.block_shift % 3),
            sector_size,
            has_parent: !self.is_base,
            locator: self.locator.locator(),
            ..Spec::empty(size)
        };
        for (block, state) in self.states.iter().enumerate() {
            // A few pages of content suffice to distinguish images.
            let fill = Fill::Pieces(vec![(0, pattern(spec.seed, 0, 8192)), (1000 * KIB, pattern(spec.seed, 1, 8192))]);
            let new = match state {
                State::Absent => continue,
                State::Zero => Block::zero(),
                State::Full => Block::full().fill(fill),
                State::Partial(start, length) => {
                    let start = u64::from(*start);
                    Block::partial(&[start..start + u64::from(*length), 2000..2001]).fill(fill)
                }
            };
            spec.blocks.insert(block as u64, new);
        }
        spec.build()
    }
}

pub fn run(input: &Input) {
    let images: Vec<Image> =
        input.images.iter().take(5).enumerate().map(|(number, layer)| layer.build(number)).collect();
    if images.is_empty() {
        return;
    }
    let in_memory = |image: &Image| Source::from_vec(image.bytes.to_vec());
    let sources: Vec<Source> =
        images.iter().map(|image| if input.is_mapped { mapped(&image.bytes) } else { in_memory(image) }).collect();
    let (found, goes_on, count) = (input.found.clone(), input.goes_on, images.len());
    let parent_of = move |layer: usize| match found.get(layer) {
        Some(found) => Some(usize::from(*found)).filter(|found| *found < count),
        None if layer + 1 < count => Some(layer + 1),
        None => Some(count - 1).filter(|_| goes_on),
    };
    let finder = {
        let (sources, parent_of) = (sources.clone(), parent_of.clone());
        move |request: &ParentRequest<'_>| Ok(parent_of(request.layer).map(|found| sources[found].clone()))
    };
    let options = OpenOptions::new().parents(Parents::With(Arc::new(finder)));
    let chain = Chain::open(sources[0].clone(), &options);
    if let Ok(chain) = &chain {
        look_at_everything(chain);
        assert!(chain.layers().len() <= MAX_PARENTS + 1);
    }
    judge(input, &images, chain, parent_of);
}

/// Follows the chain by the plan of the images, and compares.
fn judge(input: &Input, images: &[Image], chain: vhdx_mmap::Result<Chain>, parent_of: impl Fn(usize) -> Option<usize>) {
    let mut numbers = vec![0];
    let is_whole = loop {
        let last = numbers[numbers.len() - 1];
        if !images[last].spec.has_parent {
            break true;
        }
        match parent_of(numbers.len() - 1) {
            // The naive reader accepts 256 files, the library 256 parents; a longer chain reaches the library's limit.
            Some(_) if numbers.len() > 200 => break false,
            Some(next) => numbers.push(next),
            None => break false,
        }
    };
    let is_long = numbers.len() > 200;
    let is_twice = (1..numbers.len()).any(|at| numbers[..at].contains(&numbers[at]));
    let files: Vec<&dyn FileBytes> = numbers.iter().map(|number| &images[*number].bytes as &dyn FileBytes).collect();
    let oracle = Oracle::open(&files, LogPolicy::Replay);
    let broken = match &chain {
        Ok(chain) => chain.broken(),
        Err(error) => Some(error),
    };
    match (oracle, broken.map(vhdx_mmap::Error::kind)) {
        // A file that is its own ancestor.
        (Ok(_), Some(ErrorKind::ChainCycle)) => assert!(input.is_mapped && is_twice),
        (Ok(_), Some(ErrorKind::ChainTooLong { .. })) => assert!(is_long),
        (Ok(_), found) if is_long || (input.is_mapped && is_twice) => panic!("a chain without end ends with {found:?}"),
        (Ok(oracle), None | Some(ErrorKind::ParentNotFound { .. })) => {
            let chain = chain.expect("a chain that can be opened");
            assert_eq!((chain.layers().len(), chain.broken().is_none()), (numbers.len(), is_whole));
            let disk = &Disk::so_far(&chain);
            assert_same(disk, &oracle, some_sectors(disk));
        }
        (Ok(_), Some(other)) => panic!("a good chain is refused: {other:?}"),
        (Err(_), Some(_)) => {}
        (Err(fault), None) => panic!("a chain is opened that is {fault:?}"),
    }
}
