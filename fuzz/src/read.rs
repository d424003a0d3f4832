//! Images with changes in their structures: an image that opens reads as with the naive reader, and the naive reader
//! rejects all others, too.

use std::cell::RefCell;

use arbitrary::Arbitrary;
use vhdx_mmap::{Chain, Disk};

use crate::bases::{Base, bases, policies};
use crate::change::{Change, apply};
use crate::judge::{assert_same, look_at_everything, look_at_log, some_sectors};
use crate::kit::oracle::Oracle;

/// A list of changes to one of the images.
#[derive(Arbitrary, Debug)]
pub struct Input {
    pub(crate) base: u8,
    pub(crate) ignores_log: bool,
    pub(crate) mends_checksums: bool,
    pub(crate) cut: Option<u32>,
    pub(crate) changes: Vec<Change>,
}

thread_local! {
    static BASES: RefCell<Vec<Base>> = RefCell::new(bases());
}

/// Calls `judge` with an image to which the changes of `input` were applied.
pub(crate) fn with_changes(input: &Input, judge: impl Fn(&Base, &Input)) {
    BASES.with_borrow_mut(|bases| {
        let count = bases.len();
        let base = &mut bases[usize::from(input.base) % count];
        apply(&mut base.scratch, &base.places, &input.changes, input.mends_checksums);
        if let Some(cut) = input.cut {
            base.scratch.cut(cut as usize);
        }
        judge(base, input);
        base.scratch.restore();
    });
}

/// Asserts that an image that opens reads as with the naive reader.
pub fn run(input: &Input) {
    with_changes(input, agree_with_oracle);
}

fn agree_with_oracle(base: &Base, input: &Input) {
    let (policy, oracle_policy) = policies(input.ignores_log);
    let options = base.options(policy);
    look_at_log(base.scratch.source());
    let chain = Chain::open(base.scratch.source(), &options);
    if let Ok(chain) = &chain {
        look_at_everything(chain);
    }
    // An image that has become a base is not asked for parents.
    let layers = chain
        .as_ref()
        .map_or(usize::MAX, |chain| if chain.broken().is_some() { usize::MAX } else { chain.layers().len() });
    let files = base.files(layers);
    let disk = chain.and_then(|chain| Disk::from_chain(&chain));
    match (disk, Oracle::open(&files, oracle_policy)) {
        (Ok(disk), Ok(oracle)) => assert_same(&disk, &oracle, some_sectors(&disk)),
        (Err(_), Err(_)) => {}
        (Ok(_), Err(fault)) => panic!("opened, but the naive reader says {fault:?}"),
        (Err(error), Ok(_)) => panic!("the naive reader opens what is refused: {error}"),
    }
}
