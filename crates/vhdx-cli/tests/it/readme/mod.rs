//! Checks that the README and the pages in `docs` show what the command prints, and that the example of the README
//! compiles.

#[expect(
    dead_code,
    clippy::print_stdout,
    unsafe_code,
    reason = "an example prints, has a `main` that this test does not call, and shows how images are mapped"
)]
mod example;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use crate::schema;
use crate::support::{root, run, skip, temp_dir, vhdx};

/// With this environment variable, the tests write the output of the command into the pages.
const UPDATE: &str = "UPDATE_DOCS";

/// The line of `docs/cli.md` after which everything is generated.
const GENERATED: &str = "<!-- generated from here on: UPDATE_DOCS=1 cargo test readme -->\n";

fn page(name: &str) -> String {
    let text = std::fs::read_to_string(root().join(name));
    assert!(text.is_ok(), "{name}: {text:?}");
    text.unwrap()
}

/// The README and every page in `docs`.
fn pages() -> Vec<String> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(root().join("docs")).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|name| name.extension().is_some_and(|extension| extension == "md"));
    names.sort();
    names.insert(0, root().join("README.md"));
    names.iter().map(|name| std::fs::read_to_string(name).unwrap()).collect()
}

/// Compares a page with its expected content, or writes it.
fn assert_page(name: &str, found: &str, expected: &str) {
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(root().join(name), expected).unwrap();
    } else {
        assert!(found == expected, "{name} is out of date: {UPDATE}=1 cargo test readme writes it again");
    }
}

/// Fenced blocks of a text: the kind after the fence, and the content.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let mut fences = text.split("```").skip(1);
    let mut all = Vec::new();
    while let (Some(block), Some(_)) = (fences.next(), fences.next()) {
        all.push(block.split_once('\n').unwrap());
    }
    all
}

fn help() -> String {
    run(&mut vhdx(["--help"])).done().text()
}

/// Names of the commands in the help.
fn commands() -> Vec<String> {
    let help = help();
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let mut names: Vec<String> = names.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
    names.retain(|name| name != "help");
    assert!(names.len() >= 12, "{help}");
    names
}

/// A section of `docs/cli.md`: the long help of a command, without the common options. Those are in the help of the
/// program.
fn section(command: Option<&str>) -> String {
    let words: Vec<&str> = command.into_iter().chain(["--help"]).collect();
    let text = run(&mut vhdx(&words)).done().text();
    let own = text.split("Common options:").next().unwrap();
    let text = if command.is_none() { &text } else { own };
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let title = command.map_or("vhdx".to_owned(), |command| format!("vhdx {command}"));
    format!("\n## {title}\n\n```text\n$ vhdx {}\n{}\n```\n", words.join(" "), lines.join("\n").trim_end())
}

#[test]
fn cli_page_has_the_help_of_every_command() {
    let found = page("docs/cli.md");
    let (written, _) = found.split_once(GENERATED).unwrap();
    let commands = commands();
    let sections = std::iter::once(None).chain(commands.iter().map(|command| Some(command.as_str()))).map(section);
    let expected = format!("{written}{GENERATED}{}", sections.collect::<String>());
    assert_page("docs/cli.md", &found, &expected);
}

#[test]
fn exit_codes_page_has_the_meanings_of_the_help() {
    let help = help();
    let listed = help.split("Exit codes:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let of_help: Vec<(u8, &str)> = listed
        .lines()
        .map(|line| line.trim_start().split_once(' ').unwrap())
        .map(|(code, meaning)| (code.parse().unwrap(), meaning.trim()))
        .collect();
    let numbers: Vec<u8> = of_help.iter().map(|(code, _)| *code).collect();
    assert_eq!(numbers, [0, 1, 2, 65, 66, 69, 73, 74, 80, 81, 82, 130]);
    // The first table of the page: code, meaning as in the help, and what to do.
    let found = page("docs/exit-codes.md");
    let mut expected = String::new();
    let mut meanings = of_help.iter();
    for line in found.split_inclusive('\n') {
        let cells: Vec<&str> = line.split(" | ").collect();
        let code = cells[0].strip_prefix("| ").and_then(|code| code.parse::<u8>().ok());
        match (code, meanings.as_slice()) {
            (Some(code), [(next, meaning), ..]) if cells.len() == 3 => {
                assert_eq!(code, *next, "docs/exit-codes.md");
                expected += &format!("| {code} | {meaning} | {}", cells[2]);
                meanings.next();
            }
            _ => expected += line,
        }
    }
    assert_eq!(meanings.len(), 0, "docs/exit-codes.md has no row for {meanings:?}");
    assert_page("docs/exit-codes.md", &found, &expected);
}

#[test]
fn schema_files_are_those_of_the_reports() {
    let folder = root().join("docs/schema");
    std::fs::create_dir_all(&folder).unwrap();
    let mut names = BTreeSet::new();
    for (name, schema) in schema::all() {
        let name = format!("docs/schema/{name}.json");
        let found = std::fs::read_to_string(root().join(&name)).unwrap_or_default();
        assert_page(&name, &found, &format!("{schema:#}\n"));
        names.insert(root().join(name));
    }
    let found: BTreeSet<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found, names);
    let text = page("docs/json.md");
    assert!(names.iter().all(|name| text.contains(&format!("(schema/{})", name.file_name().unwrap().display()))));
}

/// Keys of all objects in a value. Under some keys, objects have names from the image or the guest.
fn keys_of(value: &serde_json::Value, keys: &mut BTreeSet<String>) {
    const NAMED_OTHERWISE: [&str; 5] = ["children", "states", "disk", "locator", "digests"];

    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                keys.insert(key.clone());
                if !NAMED_OTHERWISE.contains(&key.as_str()) {
                    keys_of(value, keys);
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| keys_of(value, keys)),
        _ => {}
    }
}

#[test]
fn json_page_has_the_keys_that_the_commands_print() {
    let text = page("docs/json.md");
    let image = root().join("tests/images/hello.vhdx");
    for command in ["info", "map", "log", "chain", "hash", "check", "compare"] {
        let title = format!("\n## {command}\n");
        let section = text.split(&title).nth(1).unwrap().split("\n## ").next().unwrap();
        let mut ran = vhdx([command, "--output", "json"]);
        ran.arg(&image).args((command == "compare").then_some(&image));
        let mut keys = BTreeSet::new();
        keys_of(&run(&mut ran).done().json(), &mut keys);
        assert!(keys.len() >= 5, "{command}: {keys:?}");
        // The keys of all documents are described once.
        let introduction = text.split("\n## ").next().unwrap();
        keys.retain(|key| ![section, introduction].iter().any(|text| text.contains(&format!("`{key}`"))));
        assert!(keys.is_empty(), "docs/json.md says nothing about these keys of {command}: {keys:?}");
    }
}

#[test]
fn commands_of_the_pages_and_the_help_can_be_typed() {
    let pages = pages();
    let help = help();
    let tour = help.split("A tour:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let scripts =
        pages.iter().flat_map(|text| blocks(text)).filter(|(kind, _)| *kind == "sh").map(|(_, script)| script);
    let mut typed = 0;
    for line in scripts.chain([tour]).flat_map(str::lines) {
        let Some(command) = line.trim_start().strip_prefix("vhdx ") else { continue };
        // A comment, a pipe, an explanation after several spaces, or another program follows.
        let command = command.split(['#', '|', '>']).next().unwrap().split("  ").next().unwrap();
        let command = command.split(" -- ").next().unwrap();
        let words = command.split_whitespace().chain(["--help"]);
        let ran = run(&mut vhdx(words));
        assert!(ran.status.success() && ran.text().contains("Usage: vhdx"), "{line}: {}", ran.err);
        typed += 1;
    }
    assert!(typed >= 30, "{typed}");
}

/// A line of three dots stands for lines that are left out.
#[test]
fn readme_shows_what_the_commands_print() {
    let folder = temp_dir();
    let images = folder.path().join("tests/images");
    std::fs::create_dir_all(&images).unwrap();
    std::fs::copy(root().join("tests/images/hello.vhdx"), images.join("hello.vhdx")).unwrap();
    let text = page("README.md");
    let mut shown = 0;
    for (_, block) in blocks(&text).into_iter().filter(|(kind, _)| *kind == "console") {
        for session in block.split("$ ").skip(1) {
            let (command, output) = session.split_once('\n').unwrap();
            let words = command.strip_prefix("vhdx ").unwrap().split_whitespace();
            let printed = run(vhdx(words).current_dir(folder.path())).done().text();
            let mut printed = printed.lines();
            let mut is_gap = false;
            for line in output.lines().filter(|line| !line.is_empty()) {
                if line == "..." {
                    is_gap = true;
                    continue;
                }
                let found = if is_gap { printed.find(|found| *found == line) } else { printed.next() };
                assert!(found == Some(line), "`{command}` does not print: {line}");
                is_gap = false;
            }
            assert!(is_gap || printed.next().is_none(), "`{command}` prints more");
            shown += 1;
        }
    }
    assert!(shown >= 3, "{shown}");
}

#[test]
fn readme_example_compiles() {
    // The module above has the same text.
    let text = page("README.md");
    let (_, example) = blocks(&text).into_iter().find(|(kind, _)| kind.starts_with("rust")).unwrap();
    assert_eq!(example, include_str!("example.rs"));
}

#[test]
fn readme_begins_with_a_command_that_works() {
    let folder = temp_dir();
    let raw = folder.path().join("hello.raw");
    let image = root().join("tests/images/hello.vhdx");
    let text = page("README.md");
    assert!(text.contains("extract tests/images/hello.vhdx hello.raw"));
    run(vhdx(["extract"]).arg(&image).arg(&raw)).done();
    assert!(text.contains("`debugfs -R 'cat hello.txt' hello.raw`"));
    let Ok(shown) = Command::new("debugfs").args(["-R", "cat hello.txt"]).arg(&raw).output() else {
        return skip("mkfs", "no debugfs to look into an ext file system");
    };
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "Hello from inside a VHDX.\n");
}
