//! Shares of the work on one disk: --shard and --split, and where their results go.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vhdx_mmap::ops::manifest::Shard;
use vhdx_mmap::ops::plan::{self, Portion, Split};
use vhdx_mmap::{Disk, FileId, Layer, OpenOptions, Source, report};

use crate::args::{Common, Part, SalvageArgs, ShareArgs, Task};
use crate::exit::{Exit, Failure};
use crate::json;
use crate::open;
use crate::target::{Consent, Destination, Target};

/// The documents of `vhdx plan`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Split(Box<report::Split>),
    Plan(Box<report::Plan>),
}

impl ShareArgs {
    /// Reads what --shard and --split stand for. `images` are those that the user named: if there are none, they are
    /// set to that of the plan.
    pub(crate) fn load(&mut self, images: &mut Vec<PathBuf>) -> Result<(), Failure> {
        let shard = self.shard().map_err(Failure::usage)?;
        let portion = match (&self.split, shard) {
            (None, None) => return Ok(()),
            (None, Some(shard)) => Part::Shard(shard),
            (Some(path), shard) => Part::Split(Box::new(read_split(path, shard)?)),
        };
        if images.len() > 1 {
            let option = if self.split.is_some() { "--split" } else { "--shard" };
            return Err(Failure::usage(format!("{option}: several images (found {}, expected 1)", images.len())));
        }
        let is_named = !images.is_empty();
        if let (Part::Split(split), false) = (&portion, is_named) {
            images.extend(split.disk().layers.first().map(plan::PlannedLayer::path));
        }
        self.task = Some(Task { portion, is_named });
        Ok(())
    }
}

/// Reads a split, or the split of a plan that belongs to a shard.
fn read_split(path: &Path, shard: Option<Shard>) -> Result<Split, Failure> {
    let name = path.display();
    let file =
        File::open(path).map_err(|error| Failure::new(Exit::NoInput, format!("{name}: cannot be opened: {error}")))?;
    let text = io::read_to_string(BufReader::new(file));
    let text = text.map_err(|error| Failure::new(Exit::NoInput, format!("{name}: cannot be read: {error}")))?;
    let unusable = |what: String| Failure::new(Exit::Corrupt, format!("{name}: {what}"));
    let document: Document = serde_json::from_str(&text).map_err(|_| {
        // The error of an untagged document says nothing about its values.
        let why = match serde_json::from_str::<report::Plan>(&text)
            .err()
            .zip(serde_json::from_str::<report::Split>(&text).err())
        {
            Some((of_plan, _)) if text.contains(<report::Plan as report::Report>::SCHEMA) => of_plan.to_string(),
            Some((_, of_split)) => of_split.to_string(),
            None => String::new(),
        };
        unusable(format!("not a plan or a split: {why}")).with_hint("`vhdx plan IMAGE` makes one")
    })?;
    match (document, shard) {
        (Document::Split(found), None) => Ok(found.split),
        (Document::Split(found), Some(shard)) if found.split.shard() == shard => Ok(found.split),
        (Document::Split(found), Some(shard)) => {
            Err(Failure::usage(format!("--shard {shard}: {name} is split {}", found.split.shard())))
        }
        (Document::Plan(found), Some(shard)) => found.plan.split_of_shard(shard).ok_or_else(|| {
            let count = found.plan.ranges().len();
            Failure::usage(format!("--shard {shard}: {name} has {count} splits (expected I/{count})"))
        }),
        (Document::Plan(_), None) => Err(Failure::usage(format!("--split {name}: is a plan with several splits"))
            .with_hint("pass --shard I/N to name the split")),
    }
}

impl Task {
    /// Options for opening the image: with a split, its files are expected, and only they are opened.
    pub(crate) fn open_options(&self, common: &Common) -> OpenOptions {
        let options = open::options(common);
        match &self.portion {
            Part::Shard(_) => options,
            Part::Split(split) if self.is_named => split.expect(options),
            Part::Split(split) => {
                let common = common.clone();
                split.open_options(options, move |path| open::plain_source(path, &common))
            }
        }
    }

    /// Opens the disk, and determines the share.
    pub(crate) fn open(
        &self,
        image: &Path,
        common: &Common,
        salvage: &SalvageArgs,
    ) -> Result<(Disk, plan::Share), Failure> {
        let disk = open::salvaged_with(image, common, salvage, self.open_options(common))?;
        let failed = |error| Failure::of_image(image, &error);
        let share = match &self.portion {
            Part::Shard(shard) => plan::Share::of(&disk, *shard).map_err(failed)?,
            Part::Split(split) => split.check(&disk).map(|()| split.share()).map_err(failed)?,
        };
        Ok((disk, share))
    }

    /// The part of the work, before the disk is opened.
    pub(crate) fn portion(&self) -> Portion {
        match &self.portion {
            Part::Shard(shard) => Portion::Shard(*shard),
            Part::Split(split) => Portion::Share(split.share()),
        }
    }

    /// The shard whose range follows from the algorithms; none for a split, which has its range.
    pub(crate) fn shard(&self) -> Option<Shard> {
        match &self.portion {
            Part::Shard(shard) => Some(*shard),
            Part::Split(_) => None,
        }
    }
}

/// Where the result of a share goes: to standard output, or to a file that gets its name when it is complete.
pub(crate) enum Output {
    Standard,
    File(Box<Target>),
}

impl Output {
    pub(crate) fn new(result: Option<&Path>, layers: &[Layer]) -> Result<Self, Failure> {
        let Some(path) = result else { return Ok(Self::Standard) };
        let destination = Destination::new(path, layers, Consent { force: true, in_place: false })?;
        if !destination.is_file() {
            return Err(Failure::usage(format!("--result {}: not a regular file", path.display())));
        }
        destination.open(0, 0, false).map(|target| Self::File(Box::new(target)))
    }

    /// The stream to write to.
    pub(crate) fn stream(&self) -> Box<dyn Write + Send + '_> {
        match self {
            Self::Standard => Box::new(json::stdout()),
            Self::File(target) => Box::new(io::BufWriter::new(target.file())),
        }
    }

    /// Writes a report.
    pub(crate) fn print(&self, report: &impl Serialize) -> Result<(), Failure> {
        match self {
            Self::Standard => json::print(report),
            Self::File(target) => json::write_to(&mut io::BufWriter::new(target.file()), report),
        }
    }

    /// Gives the file its name.
    pub(crate) fn complete(self) -> Result<(), Failure> {
        match self {
            Self::Standard => Ok(()),
            Self::File(target) => target.complete(false),
        }
    }
}

/// Fails if the file of --result is one of the files that were read.
pub(crate) fn reject_files(result: &Path, files: &[Source]) -> Result<(), Failure> {
    let own = FileId::of(result).ok();
    if own.is_some() && files.iter().any(|file| file.id() == own) {
        return Err(Failure::usage(format!(
            "--result {}: is the image itself or one of its parents",
            result.display()
        )));
    }
    Ok(())
}
