//! The terminal to which bars are drawn. It may be gone while the work goes on: then nothing is drawn, and nothing
//! fails.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::TermLike;
use terminal_size::{Height, Width};

/// Standard error. What is drawn at once is written at once.
#[derive(Debug, Default)]
pub(super) struct Terminal(Mutex<String>);

impl Terminal {
    fn add(&self, text: &str) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }

    fn move_cursor(&self, steps: usize, direction: char) -> io::Result<()> {
        if steps == 0 { Ok(()) } else { self.add(&format!("\x1b[{steps}{direction}")) }
    }
}

/// Columns and lines of standard error.
fn size() -> Option<(usize, usize)> {
    let (Width(width), Height(height)) = terminal_size::terminal_size_of(io::stderr())?;
    (width > 0 && height > 0).then_some((width.into(), height.into()))
}

/// Number of columns of standard error.
pub(super) fn columns() -> usize {
    size().map_or(80, |(columns, _)| columns)
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        u16::try_from(columns()).unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        size().map_or(24, |(_, lines)| u16::try_from(lines).unwrap_or(u16::MAX))
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.add(s)?;
        self.add("\n")
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.add(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let text = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // If standard error is closed, there is no place left for progress.
        drop(anstream::stderr().write_all(text.as_bytes()));
        Ok(())
    }
}
