//! What the README says of the command is what the command says, and its example compiles.

#[expect(
    dead_code,
    clippy::print_stdout,
    unsafe_code,
    reason = "an example prints, has a `main` that nobody calls here, and shows how images are mapped"
)]
mod example;

use std::path::PathBuf;
use std::process::Command;

use crate::support::{root, run, skip, temp_dir, vhdx};

fn readme_path() -> PathBuf {
    root().join("README.md")
}

fn readme() -> String {
    std::fs::read_to_string(readme_path()).unwrap()
}

/// The fenced blocks of a text: what follows the fence, and the content.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let mut fences = text.split("```").skip(1);
    let mut all = Vec::new();
    while let (Some(block), Some(_)) = (fences.next(), fences.next()) {
        all.push(block.split_once('\n').unwrap());
    }
    all
}

/// The block that shows the help of a command: `$ vhdx info -h`, and what that prints; of the options that all commands have,
/// only that of the program itself tells.
fn shown(words: &[&str]) -> String {
    let ran = run(&mut vhdx(words)).done();
    let text = ran.text();
    let own = text.split("Common options:").next().unwrap();
    let text = if words == ["-h"] { &text } else { own };
    let lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
    format!("$ vhdx {}\n{}\n", words.join(" "), lines.join("\n").trim_end())
}

/// Set `VHDX_BLESS` to write what the command says into the README instead.
#[test]
fn the_help_that_the_readme_shows_is_that_of_the_command() {
    let text = readme();
    let mut updated = text.clone();
    let mut covered = Vec::new();
    for (_, block) in blocks(&text) {
        let first = block.lines().next().unwrap_or_default();
        let Some(command) = first.strip_prefix("$ vhdx ").filter(|command| command.ends_with("-h")) else { continue };
        let words: Vec<&str> = command.split_whitespace().collect();
        updated = updated.replace(&format!("```text\n{block}```"), &format!("```text\n{}```", shown(&words)));
        covered.push(words[0].to_owned());
    }
    if std::env::var_os("VHDX_BLESS").is_some() {
        std::fs::write(readme_path(), &updated).unwrap();
    } else {
        assert!(updated == text, "the help has changed: VHDX_BLESS=1 cargo test readme brings the README up to date");
    }
    // Every command that there is, and the program itself.
    let help = run(&mut vhdx(["-h"])).done().text();
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let mut expected: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    expected.retain(|command| *command != "help");
    expected.insert(0, "-h");
    assert!(expected.len() >= 12, "{help}");
    assert_eq!(covered, expected);
}

#[test]
fn the_exit_codes_of_the_readme_are_those_of_the_help() {
    // The code, and the words with which its meaning begins.
    let start = |code: &str, meaning: &str| {
        let meaning = meaning.split(['(', '|', ',']).next().unwrap();
        let words: Vec<&str> = meaning.split_whitespace().take(3).collect();
        (code.trim().parse::<u8>().unwrap(), words.join(" "))
    };
    let help = run(&mut vhdx(["--help"])).done().text();
    let listed = help.split("Exit codes:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let codes =
        listed.lines().map(str::trim_start).filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    let of_help: Vec<(u8, String)> =
        codes.map(|line| line.split_once(' ').unwrap()).map(|(code, meaning)| start(code, meaning)).collect();
    let text = readme();
    let table = text.split("## Exit codes").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let rows = rows.filter(|(code, _)| code.chars().all(|digit| digit.is_ascii_digit()));
    let of_readme: Vec<(u8, String)> = rows.map(|(code, meaning)| start(code, meaning)).collect();
    assert_eq!(of_help, of_readme);
    let numbers: Vec<u8> = of_help.iter().map(|(code, _)| *code).collect();
    assert_eq!(numbers, [0, 1, 2, 65, 66, 69, 73, 74, 80, 81, 82, 130]);
}

#[test]
fn the_commands_that_the_readme_and_the_help_show_can_be_typed() {
    let text = readme();
    let help = run(&mut vhdx(["--help"])).done().text();
    let tour = help.split("A tour:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let scripts = blocks(&text).into_iter().filter(|(kind, _)| *kind == "sh").map(|(_, script)| script);
    let mut typed = 0;
    for line in scripts.chain([tour]).flat_map(str::lines) {
        let Some(command) = line.trim_start().strip_prefix("vhdx ") else { continue };
        // What stands behind is a comment, a pipe, or after several spaces an explanation.
        let command = command.split(['#', '|', '>']).next().unwrap().split("  ").next().unwrap();
        let words = command.split_whitespace().chain(["--help"]);
        let ran = run(&mut vhdx(words));
        assert!(ran.status.success() && ran.text().contains("Usage: vhdx"), "{line}: {}", ran.err);
        typed += 1;
    }
    assert!(typed >= 20, "{typed}");
}

#[test]
fn the_example_of_the_readme_compiles() {
    // As the module above; this says that it is the same.
    let text = readme();
    let (_, example) = blocks(&text).into_iter().find(|(kind, _)| kind.starts_with("rust")).unwrap();
    assert_eq!(example, include_str!("example.rs"));
}

#[test]
fn the_first_thing_that_the_readme_proposes_works() {
    let folder = temp_dir();
    let raw = folder.path().join("hello.raw");
    let image = root().join("tests/images/hello.vhdx");
    assert!(readme().contains("extract tests/images/hello.vhdx hello.raw"));
    run(vhdx(["extract"]).arg(&image).arg(&raw)).done();
    // As the README goes on.
    assert!(readme().contains("`debugfs -R 'cat hello.txt' hello.raw`"));
    let Ok(shown) = Command::new("debugfs").args(["-R", "cat hello.txt"]).arg(&raw).output() else {
        return skip("mkfs", "no debugfs to look into an ext file system");
    };
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "Hello from inside a VHDX.\n");
}
