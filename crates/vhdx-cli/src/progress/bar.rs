//! The bar on a terminal: as much of it as fits on one line.

use std::fmt::{self, Write};
use std::time::Duration;

use indicatif::{BinaryBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::term::{escape, width_of};

/// Time until there is a rate: before, the first pieces of work, which may be in memory, decide it.
const SAMPLE: Duration = Duration::from_secs(1);

/// A bar for work of `total` bytes that began some time ago, on a terminal of `width` columns. Of work whose size is
/// not known (0), it shows what is done, and the speed.
pub(super) fn bar(
    target: ProgressDrawTarget,
    width: usize,
    total: u64,
    elapsed: Duration,
    phase: &str,
    file: &str,
) -> ProgressBar {
    let (template, message) = template(width, total, phase, file);
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let is_utf8 = is_utf8_locale(|name| std::env::var(name).ok());
    let style = style.progress_chars(if is_utf8 { "█▉▊▋▌▍▎▏ " } else { "#>-" });
    // The text of `percent` is rounded, up to 100.
    let style = style.with_key("done", |state: &ProgressState, out: &mut dyn Write| {
        let total = u128::from(state.len().unwrap_or(0));
        let percent = u128::from(state.pos()).saturating_mul(100).checked_div(total).unwrap_or(0);
        let _ = write!(out, "{:>3}", percent.min(100));
    });
    let style = style.with_key("speed", |state: &ProgressState, out: &mut dyn Write| {
        // If the text cannot be made, there is no speed to show.
        let _ = speed(out, state.pos(), state.len(), state.elapsed());
    });
    ProgressBar::with_draw_target(Some(total), target).with_style(style).with_message(message).with_elapsed(elapsed)
}

/// Template of the line, and its message: the phase and the file. The longest texts fit beside a bar of 10 columns.
fn template(width: usize, total: u64, phase: &str, file: &str) -> (String, String) {
    /// Columns of the percent, the shortest bar, the sizes, and the speed: `, 999.99 MiB/s, 99s`.
    const SHORTEST: usize = 16;
    const SIZES: usize = 26;
    const SPEED: usize = 21;

    let mut columns = width.saturating_sub(1);
    let is_measured = total > 0;
    let mut template = if is_measured { "{done}% {wide_bar}" } else { "{binary_bytes}" }.to_owned();
    let mut message = String::new();
    let mut take = |wanted: usize| match columns.checked_sub(wanted) {
        Some(rest) => {
            columns = rest;
            true
        }
        None => false,
    };
    if take(SHORTEST.saturating_add(SPEED)) {
        let has_sizes = take(SIZES);
        let has_both = has_sizes && is_measured;
        template.push_str(if has_both { " {binary_bytes} of {binary_total_bytes}{speed}" } else { "{speed}" });
        if has_sizes && take(width_of(phase).saturating_add(1)) {
            template.push_str(" {msg}");
            phase.clone_into(&mut message);
            let name = short(&escape(file), columns.saturating_sub(1).min(24));
            if !name.is_empty() {
                message.push(' ');
                message.push_str(&name);
            }
        }
    }
    (template, message)
}

/// Bytes per second since the beginning, and the time that the rest takes at this rate.
fn speed(out: &mut dyn Write, done: u64, total: Option<u64>, elapsed: Duration) -> fmt::Result {
    if elapsed < SAMPLE || done == 0 {
        return Ok(());
    }
    let milliseconds = elapsed.as_millis();
    let rate = u128::from(done).saturating_mul(1000).checked_div(milliseconds).unwrap_or(0);
    write!(out, ", {}/s", BinaryBytes(u64::try_from(rate).unwrap_or(u64::MAX)))?;
    let Some(total) = total.filter(|total| *total > 0) else { return Ok(()) };
    let rest = total.saturating_sub(done);
    let rest = u128::from(rest).saturating_mul(milliseconds).checked_div(u128::from(done)).unwrap_or(0);
    let rest = Duration::from_millis(u64::try_from(rest).unwrap_or(u64::MAX));
    write!(out, ", {:#}", HumanDuration(rest))
}

/// Whether the terminal understands UTF-8, according to the locale.
fn is_utf8_locale(variable: impl Fn(&str) -> Option<String>) -> bool {
    let mut names = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter();
    let locale = names.find_map(|name| variable(name).filter(|value| !value.is_empty()));
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    cfg!(windows) || locale.contains("utf-8") || locale.contains("utf8")
}

/// The end of a name that has more than `most` columns; nothing if no useful part of it fits.
fn short(name: &str, most: usize) -> String {
    const DOTS: &str = "...";

    if width_of(name) <= most {
        return name.to_owned();
    }
    if most < 8 {
        return String::new();
    }
    let fits = |(start, _): &(usize, char)| {
        let columns = name.get(*start..).map_or(0, width_of);
        columns.saturating_add(DOTS.len()) <= most
    };
    let start = name.char_indices().rev().take_while(fits).last().map_or(name.len(), |(start, _)| start);
    format!("{DOTS}{}", name.get(start..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use indicatif::{ProgressDrawTarget, TermLike};

    use super::{bar, is_utf8_locale, short, speed};
    use crate::term::width_of;

    /// A terminal that remembers what was written.
    #[derive(Clone, Debug)]
    struct Terminal {
        width: u16,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            self.width
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            // What fills the rest of the line is not part of it.
            self.lines.lock().unwrap().push(text.trim_end().to_owned());
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is shown of work that began some time ago.
    fn shown(width: u16, elapsed: Duration) -> String {
        // The sizes with the longest texts.
        shown_of(1_099_511_000_000, width, elapsed)
    }

    fn shown_of(total: u64, width: u16, elapsed: Duration) -> String {
        let terminal = Terminal { width, lines: Arc::default() };
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let bar = bar(target, width.into(), total, elapsed, "compare", "/vms/машина/диск 親親親親.vhdx");
        bar.set_position(1_098_000_000_000);
        bar.tick();
        let lines = terminal.lines.lock().unwrap();
        lines.iter().rev().find(|line| !line.is_empty()).unwrap().clone()
    }

    #[test]
    fn bar_fits_on_one_line() {
        for width in 16..140 {
            for seconds in [0, 4000, 400_000] {
                let line = shown(width, Duration::from_secs(seconds));
                assert!(width_of(&line) <= width.into(), "{width}: {line:?}");
                assert!(line.starts_with(" 99% ") && !line.contains('\n'), "{width}: {line:?}");
            }
        }
        let line = shown(120, Duration::from_secs(4000));
        assert!(line.contains(" GiB of ") && line.contains(" MiB/s, ") && line.contains(" compare ..."), "{line}");
        assert!(line.ends_with("親.vhdx"), "{line}");
        assert!(shown(80, Duration::from_secs(4000)).contains("compare"));
    }

    #[test]
    fn work_of_unknown_size_has_no_percent() {
        for width in 16..140 {
            let line = shown_of(0, width, Duration::from_secs(4000));
            assert!(width_of(&line) <= width.into(), "{width}: {line:?}");
            assert!(line.starts_with("1022.59 GiB") && !line.contains('%') && !line.contains(" of "), "{line:?}");
        }
        let line = shown_of(0, 120, Duration::from_secs(4000));
        assert!(line.starts_with("1022.59 GiB, 261.78 MiB/s compare "), "{line:?}");
    }

    #[test]
    fn speed_needs_a_sample() {
        let text = |done, seconds| {
            let mut text = String::new();
            speed(&mut text, done, Some(100 << 30), Duration::from_millis(seconds)).unwrap();
            text
        };
        assert_eq!(text(50 << 30, 999), "");
        assert_eq!(text(0, 5000), "");
        assert_eq!(text(10 << 30, 2000), ", 5.00 GiB/s, 18s");
        assert_eq!(text(100 << 30, 2000), ", 50.00 GiB/s, 0s");
        assert!(!shown(120, Duration::from_millis(500)).contains("/s"));
    }

    #[test]
    fn locale_decides_the_characters_of_the_bar() {
        let of = |values: &'static [(&str, &str)]| {
            is_utf8_locale(|name| values.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert!(of(&[("LANG", "de_DE.UTF-8")]));
        assert!(of(&[("LC_ALL", "C.utf8"), ("LANG", "C")]));
        assert!(of(&[("LC_ALL", ""), ("LANG", "C.UTF-8")]));
        if cfg!(unix) {
            assert!(!of(&[]));
            assert!(!of(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]));
            assert!(!of(&[("LC_CTYPE", "de_DE.ISO-8859-1"), ("LANG", "en_US.UTF-8")]));
        }
    }

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(short("disk.vhdx", 24), "disk.vhdx");
        assert_eq!(short("a-name-of-24-characters.", 24), "a-name-of-24-characters.");
        assert_eq!(short("/vms/a-name-of-24-characters.", 24), "...ame-of-24-characters.");
        assert_eq!(short(&"é".repeat(30), 24), format!("...{}", "é".repeat(21)));
        assert_eq!(short(&"親".repeat(30), 10), "...親親親");
        assert_eq!(short("disk.vhdx", 7), "");
    }
}
