//! Habits of writers: breaches of the format that are harmless, and expected in images of a known program.

use crate::disk::Layer;
use crate::error::{Rule, Severity};
use crate::image::Image;

use super::finding::Finding;

/// Program, what its name in the images begins with, and the rules that it is known to break.
type Habit = (&'static str, &'static str, &'static [Rule]);

const HABITS: &[Habit] = &[
    // Region table entries without the flag, and a fixed image whose unused rest is zero.
    ("QEMU", "QEMU", &[Rule::RegionRequired, Rule::Unreferenced]),
    // Entries of earlier sessions stay in the log.
    ("Windows", "Microsoft Windows", &[Rule::StaleLog, Rule::LogEntryGuid, Rule::LogEntrySequence]),
    // Two different headers with the same number.
    ("UrBackup", "UrBackup", &[Rule::HeaderSequence]),
    // The same header twice.
    ("Disk2vhd", "Disk2vhd", &[Rule::HeaderSequence]),
    // Log and metadata after the blocks, at any offset; blocks that are not present over space that is zero.
    (
        "DiscUtils",
        ".NET DiscUtils",
        &[Rule::LogAlignment, Rule::LogPlace, Rule::RegionAlignment, Rule::Unreferenced, Rule::Trailing],
    ),
];

/// What a writer without a name leaves out, which is known to be makevhdx.
const OF_MAKEVHDX: &[Rule] = &[Rule::HeaderSequence, Rule::CreatorText, Rule::NilIdentity];

/// Returns the program whose habit the breach of a rule is, if that program made the image.
fn habit_of(rule: Rule, image: &Image) -> Option<&'static str> {
    let creator = image.creator();
    if creator.is_empty() && image.header().sequence_number == 0 && OF_MAKEVHDX.contains(&rule) {
        return Some("makevhdx");
    }
    let habit = HABITS.iter().find(|(_, name, rules)| creator.starts_with(name) && rules.contains(&rule));
    habit.map(|(program, ..)| *program)
}

impl Finding {
    /// Returns the finding with the program whose habit it is, if it is harmless.
    pub(crate) fn with_habit(mut self, image: &Image) -> Self {
        self.habit_of =
            Some(self.rule).filter(|_| self.severity == Severity::Note).and_then(|rule| habit_of(rule, image));
        self
    }
}

impl Layer {
    /// Returns the warnings about the image and its link to its parent as findings, with the habits of known programs.
    pub fn findings(&self) -> impl Iterator<Item = Finding> {
        self.warnings().map(|warning| Finding::from(warning.clone()).with_habit(self.image()))
    }
}
