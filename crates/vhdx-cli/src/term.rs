//! Text for people: colours, messages, and names that cannot control the terminal.

use std::io::{BufWriter, Write};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};

pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
pub(crate) const HINT: Style = AnsiColor::Cyan.on_default().bold();
pub(crate) const TITLE: Style = Style::new().bold();

/// Buffered standard output for text.
pub(crate) type TextOut = BufWriter<AutoStream<std::io::Stdout>>;

/// Buffered standard output for text; colours are removed where they are not wanted.
pub(crate) fn stdout() -> TextOut {
    BufWriter::new(anstream::stdout())
}

/// Prints a message on standard error. If that is closed, there is no place left for it.
pub(crate) fn message(label: &str, style: Style, text: &str) {
    drop(writeln!(anstream::stderr(), "vhdx: {style}{label}{style:#}: {text}"));
}

/// Whether a character can control a terminal or mislead a reader: control characters, characters that change the
/// direction of the text, and invisible ones. Joiners and variation selectors are safe: some scripts need them.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{ad}' | '\u{115f}' | '\u{1160}' | '\u{200b}' | '\u{2060}'..='\u{2065}')
        || matches!(c, '\u{206a}'..='\u{206f}')
        || matches!(c, '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Text with unsafe characters as escapes: a name in an image may hold any character.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped
}

/// Escapes text if standard output is a terminal. Programs get the text unchanged.
pub(crate) fn escape_on_terminal(text: String) -> String {
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) { escape(&text) } else { text }
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn escape_keeps_letters_and_replaces_control_characters() {
        assert_eq!(escape("базa-親 (1).vhdx"), "базa-親 (1).vhdx");
        assert_eq!(escape("a\x1b[2Jb\r\n\u{9b}c"), "a\\u{1b}[2Jb\\r\\n\\u{9b}c");
        assert_eq!(escape("gpj\u{202e}.exe"), "gpj\\u{202e}.exe");
    }
}
