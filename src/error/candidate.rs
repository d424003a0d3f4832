//! Paths that were tried for a parent: part of the error that reports that no parent was found.

use std::fmt;
use std::path::PathBuf;

use uuid::Uuid;

use super::Error;
use super::words::Count;

/// A path that was tried for a parent, and why it was rejected.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Path of the candidate.
    pub path: PathBuf,
    /// Reason for the rejection.
    pub rejection: ParentRejection,
}

/// Reason why a candidate for a parent was rejected.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum ParentRejection {
    /// The file does not exist.
    Missing,
    /// The path is outside the folders in which the search is allowed.
    Outside,
    /// The file is already part of the chain.
    InChain,
    /// The image is readable, but its identity differs from the one that the child stores.
    OtherIdentity {
        /// DataWriteGuid of the candidate.
        found: Uuid,
    },
    /// The path is not a regular file.
    NotAFile {
        /// Kind of the file, such as "a directory" or "a pipe".
        what: &'static str,
    },
    /// The path is a folder, and no image in it has the identity that the child stores.
    NoneWithin {
        /// Number of images whose identity was read.
        images: usize,
        /// Number of images and folders in it that cannot be read.
        unreadable: usize,
        /// Whether there were few enough files to look at all of them.
        is_complete: bool,
    },
    /// The folder does not exist.
    NoFolder,
    /// The path is not a folder.
    NotAFolder,
    /// The file cannot be opened as an image, so its identity is unknown.
    Broken(Error),
    /// The file has the identity that the child stores, but cannot be opened, or cannot be the parent of this child.
    Unusable(Error),
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.path.display())?;
        match &self.rejection {
            ParentRejection::Missing => f.write_str("no such file")?,
            ParentRejection::Outside => f.write_str("outside the allowed folders")?,
            ParentRejection::InChain => f.write_str("already in the chain")?,
            ParentRejection::OtherIdentity { found } => write!(f, "DataWriteGuid {{{found}}}")?,
            ParentRejection::NotAFile { what } => write!(f, "is {what}")?,
            ParentRejection::NoFolder => f.write_str("no such folder")?,
            ParentRejection::NotAFolder => f.write_str("is not a folder")?,
            ParentRejection::NoneWithin { images, unreadable, is_complete } => {
                let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
                write!(f, "none of {} has this identity", Count(count(*images), "image", "images"))?;
                if *unreadable > 0 {
                    let what = Count(count(*unreadable), "image or folder", "images or folders");
                    write!(f, "; {what} in it cannot be read")?;
                }
                if !is_complete {
                    f.write_str("; there are too many files to look at all of them")?;
                }
            }
            ParentRejection::Broken(error) | ParentRejection::Unusable(error) => write!(f, "{error:#}")?,
        }
        f.write_str(")")
    }
}

/// The tried paths, as the end of a message.
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
