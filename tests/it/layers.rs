//! The layers of `src/design.md`: a lower layer imports nothing from a higher one. And other rules for all packages.

use std::path::{Path, PathBuf};

/// From the ground up.
const LAYERS: [(&str, usize); 13] = [
    ("error", 0),
    ("format", 1),
    ("num", 2),
    ("zero", 3),
    ("checksum", 4),
    ("threads", 5),
    ("source", 6),
    ("image", 7),
    ("disk", 8),
    ("check", 9),
    ("scan", 10),
    ("ops", 11),
    ("report", 12),
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// Returns a folder of the project.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Returns the Rust files in a folder, except build output.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                files.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Returns the names that follow `crate::` in code, without comments.
fn names_of_the_crate(source: &str) -> Vec<&str> {
    source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Words that make a test depend on time. They are put together here, so that this file does not contain them.
#[test]
fn tests_neither_sleep_nor_measure_time() {
    let words =
        [["thread::", "sleep"], ["sleep", "_ms("], [".elapsed", "()"], ["Instant", "::now"], ["SystemTime", "::now"]];
    for (name, most) in [("tests", 40), ("crates/vhdx-cli/tests", 30), ("crates/vhdx-testkit/src", 15)] {
        let files = rust_files(&folder(name));
        assert!(files.len() > most, "{files:?}");
        for path in files {
            let source = std::fs::read_to_string(&path).unwrap();
            for word in words.map(|word| word.concat()) {
                assert!(!source.contains(&word), "{}: {word}", path.display());
            }
        }
    }
}

#[test]
fn layers_import_only_lower_ones() {
    let src = folder("src");
    let (mut wrong, mut imports) = (Vec::new(), 0);
    for path in rust_files(&src) {
        let inside = path.strip_prefix(&src).unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("{module} is in no layer"));
        for name in names_of_the_crate(&std::fs::read_to_string(&path).unwrap()) {
            imports += 1;
            // A name that is not a module is a re-export of `lib.rs`, which hides its origin.
            if layer(name).is_none_or(|layer| layer > own) {
                wrong.push(format!("{} imports crate::{name}", inside.display()));
            }
        }
    }
    assert!(imports > 50, "only {imports} imports found: is this test still reading what it should?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_only_in_known_files() {
    let files = |name: &str| {
        let src = folder(name);
        let mut files: Vec<String> = rust_files(&src)
            .iter()
            .filter(|path| std::fs::read_to_string(path).unwrap().contains("expect(unsafe_code"))
            .map(|path| path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/"))
            .collect();
        files.sort();
        files
    };
    assert_eq!(files("src"), ["disk/options.rs", "source/guard/mod.rs", "source/map.rs"]);
    assert_eq!(files("crates/vhdx-cli/src"), ["open.rs"]);
}

/// So the command uses only the public interface, and shared code of tests is in the test kit. The word is put together
/// here, so that this file does not contain it.
#[test]
fn packages_include_no_files_of_others() {
    let word = ["#[", "path"].concat();
    let mut count = 0;
    for path in ["src", "tests", "benches", "crates", "fuzz"].iter().flat_map(|name| rust_files(&folder(name))) {
        let source = std::fs::read_to_string(&path).unwrap();
        assert!(!source.contains(&word), "{} takes in a file from elsewhere", path.display());
        count += 1;
    }
    assert!(count > 200, "{count}");
}

/// Expected content comes from the builders and the naive reader, so these must not depend on the library, and the
/// reader not on the builders.
#[test]
fn builders_and_naive_reader_are_independent() {
    let kit = folder("crates/vhdx-testkit/src");
    let read = |name: &str| std::fs::read_to_string(kit.join(name)).unwrap();
    for name in ["lib.rs", "builder.rs", "log.rs", "oracle.rs"] {
        assert!(!read(name).contains("vhdx_mmap"), "{name}");
    }
    let oracle = read("oracle.rs");
    let imports: Vec<&str> =
        oracle.lines().filter(|line| line.contains("super::") || line.contains("crate::")).collect();
    assert_eq!(imports, ["use super::FileBytes;"]);
    for path in rust_files(&kit) {
        let source = std::fs::read_to_string(&path).unwrap();
        assert!(!source.contains("vhdx_mmap::format"), "{}", path.display());
    }
}
