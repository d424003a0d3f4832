//! Words of command lines that are meant to be copied into a shell.

use std::path::Path;

/// A path as a word of a command line: a hint is meant to be copied into a shell.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if text.starts_with('-') {
        return shell_word(&Path::new(".").join(path));
    }
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::shell_word;

    #[test]
    fn shell_word_quotes_what_a_shell_would_split() {
        let word = |text: &str| shell_word(Path::new(text));
        assert_eq!(word("/vms/disk-1_親.vhdx"), "/vms/disk-1_親.vhdx");
        assert_eq!(word("my disk.vhdx"), "'my disk.vhdx'");
        assert_eq!(word("it's"), r"'it'\''s'");
        assert_eq!(word("$(reboot)"), "'$(reboot)'");
        assert_eq!(word("-o"), "./-o");
        assert_eq!(word(""), "''");
    }
}
