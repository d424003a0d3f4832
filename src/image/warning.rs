//! Warnings: breaches of the format, collected while an image is opened.

use std::fmt;

use crate::error::{Category, Error, Result};

use crate::error::{Rule, Severity};

/// Warning: a breach of the format in an image, or something unusual.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Warning {
    /// The broken rule.
    pub rule: Rule,
    /// Severity of the breach in this image.
    pub severity: Severity,
    /// Location and problem, with the values found and expected.
    pub detail: Error,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#} [{}]", self.detail, self.rule.code())
    }
}

/// Policy for images that violate the format in a way that makes their content uncertain.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strictness {
    /// Refuse the image, or the part of it that cannot be read for certain.
    #[default]
    Strict,
    /// Open everything that can be opened, and report problems as [`Severity::Corruption`]: for the examination of
    /// damaged images, and for the recovery of their content.
    Salvage,
}

/// The warnings of one image, in the order in which they are found: at most a few for each entry of its tables.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    list: Vec<Warning>,
    strictness: Strictness,
    /// The rule whose breach was fatal, if any.
    ended_by: Option<Rule>,
}

impl Warnings {
    pub(crate) fn new(strictness: Strictness) -> Self {
        Self { strictness, ..Self::default() }
    }

    /// Returns whether to open everything that can be opened.
    pub(crate) fn is_lenient(&self) -> bool {
        self.strictness == Strictness::Salvage
    }

    /// Adds a breach of `rule`.
    pub(crate) fn add(&mut self, rule: Rule, detail: Error) {
        self.add_as(rule, rule.severity(), detail);
    }

    /// Adds a breach of `rule` with a severity that differs from that of the rule.
    pub(crate) fn add_as(&mut self, rule: Rule, severity: Severity, detail: Error) {
        let detail = detail.breaking(rule);
        self.list.push(Warning { rule, severity, detail });
    }

    /// Adds a breach of `rule`, if `result` is an error.
    pub(crate) fn add_if_err(&mut self, rule: Rule, result: Result<()>) {
        if let Err(detail) = result {
            self.add(rule, detail);
        }
    }

    /// Handles a breach that prevents opening. In a salvage, it becomes a warning, if the caller can continue.
    ///
    /// # Errors
    /// `detail`, unless it became a warning.
    pub(crate) fn reject(&mut self, rule: Rule, detail: Error) -> Result<()> {
        if self.is_lenient() {
            let severity = severity_of(&detail);
            self.add_as(rule, severity, detail);
            return Ok(());
        }
        Err(self.fatal(rule, detail))
    }

    /// Handles the breach in `result`, if it is an error.
    ///
    /// # Errors
    /// That of `result`, unless it became a warning.
    pub(crate) fn require(&mut self, rule: Rule, result: Result<()>) -> Result<()> {
        result.or_else(|detail| self.reject(rule, detail))
    }

    /// Returns the value in `result`. Returns `None` if its error became a warning.
    ///
    /// # Errors
    /// That of `result`, unless it became a warning.
    pub(crate) fn accept<T>(&mut self, rule: Rule, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(detail) => self.reject(rule, detail).map(|()| None),
        }
    }

    /// Returns the value in `result`, whose error is from [`Self::fatal`]. Returns `None` if the error became a
    /// warning.
    ///
    /// # Errors
    /// That of `result`, unless it became a warning.
    pub(crate) fn recover<T>(&mut self, or: Rule, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(detail) if self.is_lenient() => {
                let rule = self.ended_by.take().unwrap_or(or);
                self.reject(rule, detail).map(|()| None)
            }
            Err(detail) => Err(detail),
        }
    }

    /// Returns both values, whose errors are from [`Self::fatal`]. If both are errors, both are recorded.
    ///
    /// # Errors
    /// The first error.
    pub(crate) fn both<A, B>(&mut self, or: Rule, one: Result<A>, other: Result<B>) -> Result<(A, B)> {
        match (one, other) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(one), Err(other)) => {
                self.add_as(or, severity_of(&other), other);
                Err(self.fatal(or, one))
            }
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        }
    }

    /// Handles several fatal breaches at once: all are recorded.
    ///
    /// # Errors
    /// The first breach, if there are any.
    pub(crate) fn fatal_all(&mut self, breaches: impl IntoIterator<Item = (Rule, Error)>) -> Result<()> {
        let mut breaches = breaches.into_iter();
        let Some((rule, first)) = breaches.next() else { return Ok(()) };
        for (rule, detail) in breaches {
            self.add_as(rule, severity_of(&detail), detail);
        }
        Err(self.fatal(rule, first))
    }

    /// Handles a breach after which no caller can continue.
    pub(crate) fn fatal(&mut self, rule: Rule, detail: Error) -> Error {
        self.ended_by = Some(rule);
        detail.breaking(rule)
    }

    /// Returns the rule whose breach was fatal, if any.
    pub(crate) fn ended_by(&self) -> Option<Rule> {
        self.ended_by
    }

    pub(crate) fn as_slice(&self) -> &[Warning] {
        &self.list
    }

    pub(crate) fn into_list(self) -> Vec<Warning> {
        self.list
    }
}

/// Returns the severity of an error that prevents reading.
pub(crate) fn severity_of(error: &Error) -> Severity {
    match error.category() {
        Category::Unsupported => Severity::Unsupported,
        Category::Open | Category::Io | Category::ParentNotFound | Category::DirtyLog => Severity::Unchecked,
        _ => Severity::Corruption,
    }
}
