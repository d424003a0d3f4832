//! Runs the stored inputs: `seeds`, from which fuzzing starts, and `regressions`, each of which failed once.

use std::fs;
use std::path::{Path, PathBuf};

use arbitrary::{Arbitrary, Unstructured};

fn inputs_of(folder: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target);
    let Ok(entries) = fs::read_dir(&folder) else { return Vec::new() };
    entries.map(|entry| entry.expect("a readable folder").path()).collect()
}

/// Runs every stored input of a target, and returns their number. The output names an input that fails.
fn all<'a, T: Arbitrary<'a>>(target: &str, bytes: &'a mut Vec<Vec<u8>>, run: impl Fn(&T)) -> usize {
    let paths = [inputs_of("seeds", target), inputs_of("regressions", target)].concat();
    bytes.extend(paths.iter().map(|path| fs::read(path).expect("a readable input")));
    for (path, bytes) in paths.iter().zip(bytes.iter()) {
        println!("{}", path.display());
        run(&T::arbitrary_take_rest(Unstructured::new(bytes)).expect("an input of this target"));
    }
    paths.len()
}

macro_rules! targets {
    ($($target:ident)*) => {
        /// The targets that are tested here.
        const TARGETS: &[&str] = &[$(stringify!($target)),*];

        $(
            #[test]
            fn $target() {
                let mut bytes = Vec::new();
                let count = all(stringify!($target), &mut bytes, vhdx_mmap_fuzz::$target::run);
                assert!(count >= 8, "{count} inputs: where are the others?");
            }
        )*
    };
}

targets!(chain check files loss map nbd open read replay salvage);

#[test]
fn every_target_is_tested_here() {
    let mut found: Vec<String> = inputs_of("fuzz_targets", "")
        .iter()
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, TARGETS);
}
