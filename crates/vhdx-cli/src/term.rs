//! Text for people: colours, messages, and names that cannot control the terminal.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{self, BufWriter, IsTerminal, Write};
#[cfg(target_os = "linux")]
use std::os::unix::net::UnixDatagram;
#[cfg(target_os = "linux")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

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

static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// Sets whether only errors and their hints are printed.
pub(crate) fn set_quiet(is_quiet: bool) {
    IS_QUIET.store(is_quiet, Ordering::Relaxed);
}

#[cfg(target_os = "linux")]
static SYSTEM_LOG: OnceLock<UnixDatagram> = OnceLock::new();

/// Sends messages to the log of the system, too, if it has one.
#[cfg(target_os = "linux")]
pub(crate) fn log_to_system() {
    let connected = UnixDatagram::unbound().and_then(|socket| socket.connect("/dev/log").map(|()| socket));
    if let Ok(socket) = connected {
        SYSTEM_LOG.get_or_init(|| socket);
    }
}

/// Prints a message on standard error. If that is closed, there is no place left for it.
pub(crate) fn message(label: &str, style: Style, text: &str) {
    if IS_QUIET.load(Ordering::Relaxed) && !["error", "hint"].contains(&label) {
        return;
    }
    #[cfg(target_os = "linux")]
    if let Some(log) = SYSTEM_LOG.get() {
        // Messages of a daemon, as syslog(3) sends them. There is no other place for one that is not taken.
        let priority = if label == "error" { "27" } else { "29" };
        let _ = log.send(format!("<{priority}>vhdx[{}]: {label}: {text}", std::process::id()).as_bytes());
    }
    let line = format!("vhdx: {style}{label}{style:#}: {text}\n");
    COLLECTED.with_borrow_mut(|collected| match collected {
        Some(messages) => messages.push_str(&line),
        None => Messages(line).print(),
    });
}

/// Messages for standard error that were not printed yet.
#[must_use]
pub(crate) struct Messages(String);

impl Messages {
    pub(crate) fn print(self) {
        if !self.0.is_empty() {
            drop(anstream::stderr().write_all(self.0.as_bytes()));
        }
    }
}

thread_local! {
    /// The messages of the work of this thread, if they are not printed at once.
    static COLLECTED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Returns the messages of `work` on this thread, and its result.
pub(crate) fn collect_messages<T>(work: impl FnOnce() -> T) -> (Messages, T) {
    let before = COLLECTED.replace(Some(String::new()));
    let done = work();
    (Messages(COLLECTED.replace(before).unwrap_or_default()), done)
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

/// Prints text with names of files on standard output: programs get their bytes unchanged, people get unsafe characters
/// as escapes.
pub(crate) fn print_names(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if io::stdout().is_terminal() {
        String::from_utf8_lossy(text).lines().try_for_each(|line| writeln!(out, "{}", escape(line)))?;
    } else {
        out.write_all(text)?;
    }
    out.flush()
}

/// A name as it goes to standard output: its bytes for programs, without unsafe characters for people.
pub(crate) fn name_for_output(name: &[u8]) -> Cow<'_, [u8]> {
    if io::stdout().is_terminal() {
        Cow::Owned(escape(&String::from_utf8_lossy(name)).into_bytes())
    } else {
        Cow::Borrowed(name)
    }
}

/// Writes a field of CSV (RFC 4180).
pub(crate) fn write_csv_field(out: &mut impl Write, field: &[u8], is_first: bool) -> io::Result<()> {
    if !is_first {
        out.write_all(b",")?;
    }
    if !field.iter().any(|byte| b",\"\r\n".contains(byte)) {
        return out.write_all(field);
    }
    out.write_all(b"\"")?;
    for piece in field.split_inclusive(|byte| *byte == b'"') {
        out.write_all(piece)?;
        if piece.last() == Some(&b'"') {
            out.write_all(b"\"")?;
        }
    }
    out.write_all(b"\"")
}

/// Number of columns of standard output: those of the terminal, or else the number in COLUMNS. `None` if lines may have
/// any length.
pub(crate) fn width() -> Option<usize> {
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let of_terminal = is_terminal.then(|| terminal_size::terminal_size_of(std::io::stdout())).flatten();
    let width = match of_terminal {
        Some((terminal_size::Width(width), _)) if width > 0 => Some(usize::from(width)),
        _ => std::env::var("COLUMNS").ok()?.parse().ok(),
    };
    // Nothing fits into less.
    width.map(|width| width.max(8))
}

/// Number of columns of a text, which has no control characters.
pub(crate) fn width_of(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// Breaks a text into lines of at most `width` columns: at spaces, or inside of longer words.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    let (mut columns, mut last_space) = (0_usize, None);
    for c in text.chars() {
        let of_c = unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if columns.saturating_add(of_c) > width && !line.is_empty() {
            let rest = match last_space.take() {
                Some(space) => {
                    let rest = line.split_off(space);
                    rest.trim_start_matches(' ').to_owned()
                }
                None => String::new(),
            };
            lines.push(std::mem::replace(&mut line, rest));
            columns = width_of(&line);
        }
        if c == ' ' {
            if line.is_empty() && !lines.is_empty() {
                continue;
            }
            last_space = Some(line.len());
        }
        line.push(c);
        columns = columns.saturating_add(of_c);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{escape, wrap};

    #[test]
    fn wrap_breaks_at_spaces_and_inside_of_long_words() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("a bcdefgh", 4), ["a", "bcde", "fgh"]);
        assert_eq!(wrap("\u{6f22}\u{6f22}\u{6f22}", 4), ["\u{6f22}\u{6f22}", "\u{6f22}"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("one  two", 4), ["one", "two"]);
    }

    #[test]
    fn escape_keeps_letters_and_replaces_control_characters() {
        assert_eq!(escape("базa-親 (1).vhdx"), "базa-親 (1).vhdx");
        assert_eq!(escape("a\x1b[2Jb\r\n\u{9b}c"), "a\\u{1b}[2Jb\\r\\n\\u{9b}c");
        assert_eq!(escape("gpj\u{202e}.exe"), "gpj\\u{202e}.exe");
    }
}
