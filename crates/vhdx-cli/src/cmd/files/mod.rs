//! Commands that show and copy files inside disks.

pub(crate) mod cat;
pub(crate) mod changes;
#[cfg(unix)]
pub(crate) mod cp;
pub(crate) mod df;
pub(crate) mod find;
pub(crate) mod locate;
pub(crate) mod ls;
pub(crate) mod tar;
pub(crate) mod timeline;
pub(crate) mod tree;

use vhdx_files::Metadata;

/// Kind and permissions as `ls -l` has them. Without permissions of Unix, those that Windows' attributes amount to.
fn mode_text(metadata: &Metadata) -> String {
    let default = match metadata.dos_attributes {
        Some(attributes) if attributes & 1 != 0 => 0o555,
        _ => 0o777,
    };
    let mode = metadata.mode.unwrap_or(default);
    let mut text = String::from(metadata.kind.letter());
    for (shift, special, letters) in [(6, 0o4000, ['s', 'S']), (3, 0o2000, ['s', 'S']), (0, 0o1000, ['t', 'T'])] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        let [with, without] = letters;
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => with,
            (false, true) => without,
        });
    }
    text
}

/// Whether a file is left out, since its name begins with a dot.
fn is_hidden(name: &[u8], all: bool) -> bool {
    !all && name.starts_with(b".")
}
