//! A table that fits the terminal: columns where there is room for them, otherwise a few lines for each image.

use std::io::{self, Write};

use vhdx_mmap::ops::inventory::{InventoryRow, RowContent};
use vhdx_mmap::ops::{DiskLayout, Volume, VolumeDetails};

use crate::size::{counted, short};
use crate::term::{self, TextOut, escape, width_of, wrap};
use crate::usage;

use super::{contents, log};

/// Columns before the name.
struct Column {
    title: &'static str,
    width: usize,
    /// Columns with a greater number are left out first.
    order: u8,
    text: fn(&InventoryRow) -> String,
}

const COLUMNS: &[Column] = &[
    Column {
        title: "HEALTH",
        width: 11,
        order: 1,
        text: |row| of(row, "unreadable", |row| row.health.as_str().into()),
    },
    Column { title: "KIND", width: 12, order: 2, text: |row| of(row, "-", |row| row.kind.as_str().into()) },
    Column { title: "VIRTUAL", width: 8, order: 3, text: |row| of(row, "-", |row| short(row.virtual_size)) },
    Column { title: "FILE", width: 8, order: 6, text: |row| row.file_size.map_or_else(|| "-".to_owned(), short) },
    Column {
        title: "ALLOC",
        width: 8,
        order: 4,
        text: |row| of(row, "-", |row| row.allocated.map_or_else(|| "?".to_owned(), short)),
    },
    Column { title: "LOG", width: 8, order: 7, text: |row| of(row, "-", |row| log(row).into()) },
    Column { title: "PARENT", width: 12, order: 5, text: |row| of(row, "-", |row| row.parent.as_str().into()) },
    Column { title: "CHECKPOINTS", width: 11, order: 8, text: |row| of(row, "-", |row| row.checkpoints.to_string()) },
    Column { title: "CONTENTS", width: 24, order: 9, text: |row| of(row, "-", contents) },
];

/// Smallest width of the name.
const NAME: usize = 20;

fn of(row: &InventoryRow, other: &str, text: impl Fn(&RowContent) -> String) -> String {
    row.image.as_ref().map_or_else(|_| other.to_owned(), text)
}

/// How full each file system is, or why that is unknown, a line for each.
fn usage_of(layout: &DiskLayout) -> Vec<String> {
    let line = |place: &str, volume: Option<Volume>, details: Option<&VolumeDetails>| {
        let (volume, details) = volume.zip(details)?;
        let text = match (&details.usage, &details.usage_error) {
            (Some(usage), _) => usage::text(usage)?,
            (None, Some(error)) => format!("used space is unknown: {error}"),
            (None, None) => return None,
        };
        Some(format!("{place} ({volume}): {text}"))
    };
    let whole = line("disk", layout.volume, layout.details.as_ref());
    let partitions = layout.partition_table.iter().flat_map(|table| &table.partitions);
    let partitions = partitions.filter_map(|partition| {
        line(&format!("partition {}", partition.number), partition.volume, partition.details.as_ref())
    });
    whole.into_iter().chain(partitions).collect()
}

pub(super) struct Table {
    out: TextOut,
    /// `None`: lines may have any length.
    width: Option<usize>,
    columns: Vec<&'static Column>,
}

impl Table {
    pub(super) fn begin() -> io::Result<Self> {
        let width = term::width();
        let fits = |most: u8| {
            let columns = COLUMNS.iter().filter(|column| column.order <= most);
            columns.map(|column| column.width.saturating_add(1)).fold(NAME, usize::saturating_add)
        };
        // Fewer than three columns are no table.
        let most = (3..=9).rev().find(|most| width.is_none_or(|width| fits(*most) <= width)).unwrap_or(0);
        let columns: Vec<_> = COLUMNS.iter().filter(|column| column.order <= most).collect();
        let mut table = Self { out: term::stdout(), width, columns };
        if !table.columns.is_empty() {
            let title = term::TITLE;
            write!(table.out, "{title}")?;
            for column in &table.columns {
                write!(table.out, "{:<1$} ", column.title, column.width)?;
            }
            writeln!(table.out, "NAME{title:#}")?;
        }
        Ok(table)
    }

    pub(super) fn row(&mut self, row: &InventoryRow) -> io::Result<()> {
        let name = escape(&row.path.to_string_lossy());
        if self.columns.is_empty() {
            self.lines(&name, row)?
        } else {
            self.cells(&name, row)?
        }
        let problem = match &row.image {
            Ok(image) => image.problem.as_ref(),
            Err(error) => Some(error),
        };
        if row.in_use == Some(true) {
            self.indented("in use: another program has it open for writing")?;
        }
        if let Some(problem) = problem {
            self.indented(&escape(&format!("{problem:#}")))?;
        }
        if let Ok(RowContent { zero_blocks: Some(zero), fragmented_blocks: Some(fragmented), digests, .. }) = &row.image
        {
            for digest in digests.iter().flatten() {
                self.indented(&format!("{} {digest}", digest.algorithm()))?;
            }
            self.indented(&format!("{} of zeros, {fragmented} fragmented", counted(*zero, "allocated block")))?;
        }
        let layout = row.image.as_ref().ok().and_then(|image| image.layout.as_ref().ok());
        for text in layout.map(usage_of).into_iter().flatten() {
            self.indented(&escape(&text))?;
        }
        // Rows are shown as they are found.
        self.out.flush()
    }

    /// Writes a row with its cells; long texts go on in the next line.
    fn cells(&mut self, name: &str, row: &InventoryRow) -> io::Result<()> {
        let widths: Vec<usize> = self.columns.iter().map(|column| column.width).collect();
        let before = widths.iter().map(|width| width.saturating_add(1)).fold(0, usize::saturating_add);
        let mut cells: Vec<Vec<String>> = Vec::new();
        for column in &self.columns {
            let text = escape(&(column.text)(row));
            cells.push(if self.width.is_none() { vec![text] } else { wrap(&text, column.width) });
        }
        cells.push(match self.width {
            None => vec![name.to_owned()],
            Some(width) => wrap(name, width.saturating_sub(before)),
        });
        let lines = cells.iter().map(Vec::len).max().unwrap_or(0);
        for line in 0..lines {
            let mut text = String::new();
            for (number, cell) in cells.iter().enumerate() {
                let part = cell.get(line).map_or("", String::as_str);
                text.push_str(part);
                if let Some(width) = widths.get(number) {
                    let padding = width.saturating_add(1).saturating_sub(width_of(part)).max(1);
                    text.extend(std::iter::repeat_n(' ', padding));
                }
            }
            writeln!(self.out, "{}", text.trim_end())?;
        }
        Ok(())
    }

    /// Writes a row as lines, for narrow terminals.
    fn lines(&mut self, name: &str, row: &InventoryRow) -> io::Result<()> {
        let title = term::TITLE;
        for line in wrap(name, self.width.unwrap_or(usize::MAX)) {
            writeln!(self.out, "{title}{line}{title:#}")?;
        }
        let Ok(image) = &row.image else { return self.indented("unreadable") };
        let mut facts = vec![
            image.health.as_str().to_owned(),
            image.kind.as_str().to_owned(),
            format!("{} virtual", short(image.virtual_size)),
            row.file_size.map(|size| format!("{} file", short(size))).unwrap_or_default(),
            image.allocated.map(|size| format!("{} allocated", short(size))).unwrap_or_default(),
            format!("log {}", log(image)),
            format!("parent {}", image.parent.as_str()),
            counted(u64::try_from(image.checkpoints).unwrap_or(u64::MAX), "checkpoint"),
            escape(&contents(image)),
        ];
        facts.retain(|fact| !fact.is_empty());
        self.indented(&facts.join(", "))
    }

    fn indented(&mut self, text: &str) -> io::Result<()> {
        let width = self.width.map_or(usize::MAX, |width| width.saturating_sub(2));
        wrap(text, width).iter().try_for_each(|line| writeln!(self.out, "  {line}"))
    }

    pub(super) fn end(mut self, summary: &str) -> io::Result<()> {
        for line in wrap(summary, self.width.unwrap_or(usize::MAX)) {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }
}
