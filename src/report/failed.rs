//! An image of which there is no report.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{NameBytes, Report, Schema, text_of};

/// An image of which there is no report of the type `R`, and why.
#[non_exhaustive]
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", bound = "R: Report")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(bound = "R: Report"))]
pub struct Failed<R> {
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// Why there is no report.
    pub error: String,
    /// Name of the format of the report.
    pub schema: Schema<R>,
}

/// The key of a report after its list, if the work failed: it replaces all other keys there.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Aborted {
    /// Why the list is not complete.
    pub error: String,
}

impl Aborted {
    /// Ends a list that is not complete.
    #[must_use]
    pub fn of(error: &str) -> Self {
        Self { error: error.to_owned() }
    }
}

/// A report, or the reason why it is missing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged, bound(serialize = "R: Report + Serialize", deserialize = "R: Report + Deserialize<'de>"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(bound = "R: Report + schemars::JsonSchema"))]
pub enum OrFailed<R> {
    /// The report.
    Done(Box<R>),
    /// The image could not be opened or read.
    Failed(Failed<R>),
}

impl<R: Report + fmt::Debug> fmt::Debug for OrFailed<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(report) => report.fmt(f),
            Self::Failed(failed) => failed.fmt(f),
        }
    }
}

impl<R: Report> Failed<R> {
    /// Describes an image of which there is no report.
    #[must_use]
    pub fn of(image: &Path, error: &str) -> Self {
        Self {
            filename: text_of(Some(image)),
            filename_bytes: NameBytes::of(image),
            error: error.to_owned(),
            schema: Schema::default(),
        }
    }
}

// Derived, these would ask the report for the same.
impl<R: Report> fmt::Debug for Failed<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failed").field("filename", &self.filename).field("error", &self.error).finish_non_exhaustive()
    }
}
