//! An image of which there is no report.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

#[cfg(feature = "ops")]
use crate::error::Error;
use crate::error::OtherFormat;

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
    /// What the file is, if it is not a VHDX image; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looks_like: Option<LooksLike>,
    /// Name of the format of the report.
    pub schema: Schema<R>,
}

/// Format of a file that is not a VHDX image.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LooksLike {
    /// Short name that does not change, such as `gzip`.
    pub format: String,
    /// Name in words.
    pub name: String,
    /// What the format is used for, such as `packed`.
    pub group: String,
}

impl LooksLike {
    /// Describes a format.
    #[must_use]
    pub fn of(format: OtherFormat) -> Self {
        Self { format: format.key.to_owned(), name: format.name.to_owned(), group: format.group.as_str().to_owned() }
    }

    /// Describes the file that could not be opened, unless the error is one of a parent.
    #[cfg(feature = "ops")]
    pub(super) fn of_error(error: &Error) -> Option<Self> {
        error.looks_like().filter(|_| error.layer() == 0).map(Self::of)
    }
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
            looks_like: None,
            schema: Schema::default(),
        }
    }

    /// Adds what the file is, if it is not a VHDX image ([`Error::looks_like`](crate::Error::looks_like)).
    #[must_use]
    pub fn looks_like(mut self, format: Option<OtherFormat>) -> Self {
        self.looks_like = format.map(LooksLike::of);
        self
    }
}

// Derived, these would ask the report for the same.
impl<R: Report> fmt::Debug for Failed<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failed").field("filename", &self.filename).field("error", &self.error).finish_non_exhaustive()
    }
}
