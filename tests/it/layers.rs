//! The layers of `src/design.md`: what lies lower imports nothing that lies higher.

use std::path::{Path, PathBuf};

/// From the ground up.
const LAYERS: [(&str, usize); 11] = [
    ("error", 0),
    ("format", 1),
    ("num", 2),
    ("zero", 3),
    ("checksum", 4),
    ("threads", 5),
    ("source", 6),
    ("image", 7),
    ("disk", 8),
    ("scan", 9),
    ("ops", 10),
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The names that follow `crate::` in code, comments left out.
fn names_of_the_crate(source: &str) -> Vec<&str> {
    source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
        .filter(|name| !name.is_empty())
        .collect()
}

/// What a test depends on time by. Words are put together here, so that this file does not have them.
#[test]
fn no_test_sleeps_or_measures_time() {
    let words =
        [["thread::", "sleep"], ["sleep", "_ms("], [".elapsed", "()"], ["Instant", "::now"], ["SystemTime", "::now"]];
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = rust_files(&tests);
    assert!(files.len() > 50, "{files:?}");
    for path in files {
        let source = std::fs::read_to_string(&path).unwrap();
        for word in words.map(|word| word.concat()) {
            assert!(!source.contains(&word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn no_layer_imports_a_higher_one() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut wrong, mut imports) = (Vec::new(), 0);
    for path in rust_files(&src) {
        let inside = path.strip_prefix(&src).unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if matches!(module, "lib" | "bin") {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("{module} is in no layer"));
        for name in names_of_the_crate(&std::fs::read_to_string(&path).unwrap()) {
            imports += 1;
            // A name that is no module is a re-export of `lib.rs`, which hides where it comes from.
            if layer(name).is_none_or(|layer| layer > own) {
                wrong.push(format!("{} imports crate::{name}", inside.display()));
            }
        }
    }
    assert!(imports > 50, "only {imports} imports found: is this test still reading what it should?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_is_only_where_the_design_puts_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files: Vec<String> = rust_files(&src)
        .iter()
        .filter(|path| std::fs::read_to_string(path).unwrap().contains("expect(unsafe_code"))
        .map(|path| path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/"))
        .collect();
    files.sort();
    assert_eq!(files, ["bin/vhdx/open.rs", "disk/chain.rs", "source/guard.rs", "source/map.rs"]);
}

#[test]
fn the_command_uses_the_public_interface_only() {
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin");
    for path in rust_files(&bin) {
        let source = std::fs::read_to_string(&path).unwrap();
        assert!(!source.contains("#[path"), "{} takes in a file of the library", path.display());
    }
}
