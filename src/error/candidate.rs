//! The places where a parent was looked for: part of the error that says that it was not found.

use std::fmt;
use std::path::PathBuf;

use uuid::Uuid;

use super::Error;

/// A place where a parent was looked for, and why it was not taken.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The path.
    pub path: PathBuf,
    /// What was found there.
    pub outcome: ParentRejection,
}

/// Why a candidate for a parent was not taken.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum ParentRejection {
    /// There is no such file.
    Missing,
    /// The path leads out of the folders in which the search is allowed.
    Outside,
    /// It is a file of the chain already.
    InChain,
    /// It is a readable image with another identity than the child asks for.
    OtherIdentity {
        /// Its DataWriteGuid.
        found: Uuid,
    },
    /// It is no regular file, but what is said here.
    NotAFile {
        /// "a directory", "a pipe" and so on.
        what: &'static str,
    },
    /// It could not be opened as an image, so that its identity is not known.
    Broken(Error),
    /// It has the identity that the child asks for, but can't be opened, or can't be this child's parent.
    Unusable(Error),
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.path.display())?;
        match &self.outcome {
            ParentRejection::Missing => f.write_str("no such file")?,
            ParentRejection::Outside => f.write_str("outside of the folders allowed")?,
            ParentRejection::InChain => f.write_str("in the chain already")?,
            ParentRejection::OtherIdentity { found } => write!(f, "DataWriteGuid {{{found}}}")?,
            ParentRejection::NotAFile { what } => write!(f, "is {what}")?,
            ParentRejection::Broken(error) | ParentRejection::Unusable(error) => write!(f, "{error}")?,
        }
        f.write_str(")")
    }
}

/// Where a parent was looked for, as the end of a message.
pub(super) struct Tried<'a>(pub(super) &'a [Candidate]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, candidate) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "; tried " } else { ", " })?;
            write!(f, "{candidate}")?;
        }
        Ok(())
    }
}
