//! `vhdx find`: searches files in a disk.

use std::io::{BufWriter, Stdout, Write};

use sha2::{Digest, Sha256};
use vhdx_files::report::{FileRow, FindRow};
use vhdx_files::{FileKind, Found, Walk};

use crate::args::{Common, FindArgs, KindChoice};
use crate::exit::{Exit, Failure};
use crate::files::Opened;
use crate::json;
use crate::term::name_for_output;

use super::ls::below;

pub(crate) fn run(args: &FindArgs, common: &Common) -> Result<Exit, Failure> {
    let opened = Opened::new(&args.path, args.disk, common)?;
    let node = opened.node()?;
    let mut out = json::stdout();
    let mut exit = Exit::Done;
    for found in Walk::new(&*opened.volume, node) {
        let found = match found {
            Ok(found) if matches(&found, args) => found,
            Ok(_) => continue,
            Err(unread) => {
                out.flush()?;
                opened.warn(&below(&opened.path, &unread.path), &unread.error);
                exit = Exit::Corrupt;
                continue;
            }
        };
        let path = below(&opened.path, &found.path);
        if let Err(failure) = print(&mut out, &opened, &found, &path, args) {
            match failure {
                Failure::Message { .. } => {
                    out.flush()?;
                    exit = failure.report();
                }
                other => return Err(other),
            }
        }
    }
    out.flush()?;
    Ok(exit)
}

fn matches(found: &Found, args: &FindArgs) -> bool {
    let metadata = &found.metadata;
    let kind = match args.kind {
        None => true,
        Some(KindChoice::F) => metadata.kind == FileKind::File,
        Some(KindChoice::D) => metadata.kind == FileKind::Directory,
        Some(KindChoice::L) => metadata.kind == FileKind::Link,
    };
    let is_file = metadata.kind == FileKind::File;
    let lower = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase();
    let modified = metadata.times.modified.map(|time| time.seconds);
    kind && args.name.as_ref().is_none_or(|pattern| is_like(pattern, &String::from_utf8_lossy(&found.name)))
        && args.iname.as_ref().is_none_or(|pattern| is_like(&pattern.to_lowercase(), &lower(&found.name)))
        && args.larger.is_none_or(|size| is_file && metadata.size >= size)
        && args.smaller.is_none_or(|size| is_file && metadata.size <= size)
        && args.newer.is_none_or(|time| modified.is_some_and(|modified| modified >= time))
        && args.older.is_none_or(|time| modified.is_some_and(|modified| modified < time))
        && (!args.sha256 || is_file)
}

/// Whether a name is like a pattern of a shell.
fn is_like(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where the last star is, and how much of the name it has taken: it takes more when the rest does not fit.
    let (mut at, mut position, mut star) = (0_usize, 0_usize, None::<(usize, usize)>);
    while position < name.len() {
        let rest = pattern.get(at..).unwrap_or_default();
        if rest.first() == Some(&'*') {
            star = Some((at, position));
            at = at.saturating_add(1);
            continue;
        }
        let character = name.get(position).copied().unwrap_or_default();
        if let Some(length) = takes(rest, character) {
            at = at.saturating_add(length);
            position = position.saturating_add(1);
            continue;
        }
        let Some((begin, taken)) = star else { return false };
        star = Some((begin, taken.saturating_add(1)));
        at = begin.saturating_add(1);
        position = taken.saturating_add(1);
    }
    pattern.get(at..).unwrap_or_default().iter().all(|character| *character == '*')
}

/// How much of a pattern stands for a character, if it begins with what does.
fn takes(pattern: &[char], character: char) -> Option<usize> {
    match pattern {
        [] => None,
        ['?', ..] => Some(1),
        ['\\', escaped, ..] => (*escaped == character).then_some(2),
        ['[', set @ ..] if set.iter().skip(1).any(|end| *end == ']') => {
            let end = set.iter().skip(1).position(|end| *end == ']')?.saturating_add(1);
            let set = set.get(..end)?;
            let (is_not, set) = match set {
                ['!' | '^', set @ ..] => (true, set),
                set => (false, set),
            };
            let mut is_in = set.contains(&character);
            for window in set.windows(3) {
                if let [from, '-', to] = window {
                    is_in |= (*from..=*to).contains(&character);
                }
            }
            (is_in != is_not).then(|| end.saturating_add(2))
        }
        [other, ..] => (*other == character).then_some(1),
    }
}

fn print(
    out: &mut BufWriter<Stdout>,
    opened: &Opened,
    found: &Found,
    path: &[u8],
    args: &FindArgs,
) -> Result<(), Failure> {
    let digest = if args.sha256 { Some(digest(opened, found, path)?) } else { None };
    if args.output.is_json() {
        let file = FileRow::of(&*opened.volume, path, found.node, &found.metadata);
        let file = file.map_err(|error| opened.failure(path, error))?;
        json::write_line(out, &FindRow { file, sha256: digest })?;
        writeln!(out)?;
        return Ok(());
    }
    if let Some(digest) = digest {
        write!(out, "{digest}  ")?;
    }
    if args.null {
        out.write_all(path)?
    } else {
        out.write_all(&name_for_output(path))?
    }
    out.write_all(if args.null { b"\0" } else { b"\n" })?;
    Ok(())
}

fn digest(opened: &Opened, found: &Found, path: &[u8]) -> Result<String, Failure> {
    let failed = |error| opened.failure(path, error);
    let content = opened.volume.open(found.node, None).map_err(failed)?;
    let (mut hash, mut buffer, mut offset) = (Sha256::new(), vec![0; 1 << 18], 0_u64);
    loop {
        let read = content.read_at(&mut buffer, offset).map_err(failed)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        hash.update(bytes);
        offset = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn patterns_are_those_of_shells() {
        for (pattern, name, expected) in [
            ("*.docx", "letter.docx", true),
            ("*.docx", "letter.doc", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("**a*b*", "xxaxxbxx", true),
            ("a*b", "aXbXc", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("日?語", "日本語", true),
            ("", "a", false),
        ] {
            assert_eq!(is_like(pattern, name), expected, "{pattern} {name}");
        }
        // A pattern with many stars takes no time that grows with their number.
        assert!(!is_like(&"a*".repeat(40), &"a".repeat(39)));
    }
}
