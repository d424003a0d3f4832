//! Findings as text: in a command that reads content, what matters for the content; otherwise all of them.

use std::io::{self, Write};
use std::path::Path;

use vhdx_mmap::{Disk, ErrorKind, Finding, Image, ImageKind, LogState, Rule, Severity, ops};

use crate::args::{Common, ProgressChoice};
use crate::bulk;
use crate::exit::{Exit, Failure};
use crate::shell::shell_word;
use crate::size::counted;
use crate::term::{self, escape};

/// A finding on one line, with the range of the disk that it concerns.
pub(crate) fn text_of(finding: &Finding) -> String {
    match &finding.range {
        Some(range) => {
            let length = range.end.saturating_sub(range.start);
            format!("{finding}, disk offset {:#x}, length {length:#x}", range.start)
        }
        None => finding.to_string(),
    }
}

/// What to do about content that is missing or wrong although it can be read.
fn advice(path: &Path, image: &Image, finding: &Finding) -> String {
    let word = shell_word(path);
    match finding.detail.kind() {
        _ if finding.rule == Rule::LogGrowth => "copy the whole file again, if it was truncated".to_owned(),
        ErrorKind::Truncated { .. } => "copy the whole file again".to_owned(),
        ErrorKind::LostBlocks { .. } if matches!(image.log_state(), LogState::Ignored) => {
            "the log may have them: leave out --log ignore".to_owned()
        }
        ErrorKind::LostBlocks { space, .. } if may_be_linear(image, *space) => format!(
            "`vhdx extract --salvage --assume layout=linear {word} disk.raw` reads blocks where a fixed image has them"
        ),
        ErrorKind::Overlap { .. } => {
            format!("at least one of them is wrong; `vhdx check {word}` lists all problems")
        }
        _ => format!("`vhdx check {word}` lists all problems"),
    }
}

/// Whether the blocks of an image may be where a fixed image has them, in space of this length that nothing refers to.
fn may_be_linear(image: &Image, space: u64) -> bool {
    let is_assumed =
        image.warnings().iter().any(|warning| matches!(warning.detail.kind(), ErrorKind::AssumedPlaces { .. }));
    !is_assumed
        && match image.kind() {
            ImageKind::Fixed => true,
            ImageKind::Dynamic => space >= image.virtual_disk_size(),
            ImageKind::Differencing => false,
        }
}

/// Warns of content that is missing or wrong although it can be read.
pub(crate) fn warn_of_content(path: &Path, disk: &Disk, common: &Common) -> Result<(), Failure> {
    if common.quiet {
        return Ok(());
    }
    for finding in bulk::all_threads(common)?.install(|| ops::content_warnings(disk)) {
        let image = disk.layers().get(finding.detail.layer()).map_or(disk.image(), |layer| layer.image());
        let advice = advice(image.path().unwrap_or(path), image, &finding);
        let text = format!("{}: {}: {advice}", path.display(), text_of(&finding));
        term::message("warning", term::WARNING, &escape(&text));
    }
    Ok(())
}

/// Whether people see the finding: notes only with --verbose, and errors only with --quiet.
pub(crate) fn is_shown(severity: Severity, common: &Common) -> bool {
    match severity {
        Severity::Note => common.verbose && !common.quiet,
        Severity::Warning | Severity::Leak => !common.quiet,
        _ => true,
    }
}

/// The line that stands for notes that are not shown, if there are any.
pub(crate) fn hidden_notes(count: u64, common: &Common) -> Option<String> {
    let is_hidden = count > 0 && !is_shown(Severity::Note, common) && !common.quiet;
    is_hidden.then(|| {
        let pronoun = if count == 1 { "it" } else { "them" };
        format!("{} (-v shows {pronoun})", counted(count, "harmless note"))
    })
}

/// Number of images by result, for the closing line of a command that was given several.
#[derive(Debug, Default)]
pub(crate) struct Tally(Vec<(&'static str, u64)>);

impl Tally {
    /// Results in the order of the line.
    const ORDER: [&'static str; 11] = [
        "fine",
        "hashed",
        "OK",
        "with warnings",
        "with leaks",
        "with mismatches",
        "not supported",
        "not checked",
        "not verified",
        "corrupt",
        "failed",
    ];

    pub(crate) fn add(&mut self, result: &'static str) {
        match self.0.iter_mut().find(|(known, _)| *known == result) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.0.push((result, 1)),
        }
    }

    /// The result of a check.
    pub(crate) fn add_checked(&mut self, exit: Exit) {
        self.add(match exit {
            Exit::Done => "fine",
            Exit::Leaks => "with leaks",
            Exit::NotSupported => "not supported",
            Exit::NotChecked => "not checked",
            _ => "corrupt",
        });
    }

    /// The closing line, if there was more than one image.
    pub(crate) fn line(&self) -> Option<String> {
        self.line_of("images")
    }

    /// The closing line of images, or of other things, if there was more than one.
    pub(crate) fn line_of(&self, things: &str) -> Option<String> {
        let all = self.0.iter().map(|(_, count)| *count).fold(0, u64::saturating_add);
        let count_of = |result: &str| self.0.iter().find(|(known, _)| *known == result).map(|(_, count)| *count);
        let parts = Self::ORDER.iter().filter_map(|result| Some(format!("{} {result}", count_of(result)?)));
        (all > 1).then(|| format!("{all} {things}: {}", parts.collect::<Vec<_>>().join(", ")))
    }
}

/// Prints a closing line on standard error, where standard output is for other programs.
pub(crate) fn close(line: Option<String>, common: &Common) {
    if let Some(line) = line.filter(|_| !common.quiet && common.progress() != ProgressChoice::Json) {
        // If standard error is closed, there is no place left for it.
        drop(writeln!(io::stderr(), "vhdx: {line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use crate::exit::Exit;

    #[test]
    fn closing_line_counts_results_in_order() {
        let mut tally = Tally::default();
        assert_eq!(tally.line(), None);
        tally.add_checked(Exit::Corruption);
        assert_eq!(tally.line(), None);
        (0..3).for_each(|_| tally.add_checked(Exit::Done));
        tally.add_checked(Exit::Leaks);
        assert_eq!(tally.line().as_deref(), Some("5 images: 3 fine, 1 with leaks, 1 corrupt"));
    }
}
