//! What is against the format in an image: collected as it is found.

use std::fmt;

use crate::error::{Category, Error, Result};

use crate::error::{Rule, Severity};

/// Something in an image that is against the format, or out of the ordinary.
#[derive(Clone, Debug)]
pub struct Warning {
    /// The rule that is broken.
    pub rule: Rule,
    /// How much that matters here.
    pub severity: Severity,
    /// Where, what was found, and what was expected.
    pub detail: Error,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.detail, self.rule.code())
    }
}

/// What to do with an image that is against the format in a way that makes reading it a guess.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strictness {
    /// Refuse it, or the part of it that can't be read for certain.
    #[default]
    Strict,
    /// Open whatever can be opened, and note what is wrong as a [`Severity::Corruption`]: for the examination of damaged
    /// images and for saving what is left in them.
    Salvage,
}

/// The warnings of one image, as they are found: at most a few for each entry of its tables.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    list: Vec<Warning>,
    strictness: Strictness,
    /// The rule whose breach was the end, where one was.
    ended_by: Option<Rule>,
}

impl Warnings {
    pub(crate) fn new(strictness: Strictness) -> Self {
        Self { strictness, ..Self::default() }
    }

    /// Whether everything is to be opened that can be.
    pub(crate) fn is_lenient(&self) -> bool {
        self.strictness == Strictness::Salvage
    }

    /// Notes that `rule` fails, as `detail` says.
    pub(crate) fn add(&mut self, rule: Rule, detail: Error) {
        self.add_as(rule, rule.severity(), detail);
    }

    /// The same, where it matters more or less than it does as a rule.
    pub(crate) fn add_as(&mut self, rule: Rule, severity: Severity, detail: Error) {
        let detail = detail.breaking(rule);
        self.list.push(Warning { rule, severity, detail });
    }

    /// Notes that `rule` fails, if it does.
    pub(crate) fn add_if_err(&mut self, rule: Rule, result: Result<()>) {
        if let Err(detail) = result {
            self.add(rule, detail);
        }
    }

    /// A breach that keeps an image from being opened; noted, where everything is to be opened that can be and the caller can
    /// go on in some way.
    ///
    /// # Errors
    /// `detail`, unless it was noted.
    pub(crate) fn reject(&mut self, rule: Rule, detail: Error) -> Result<()> {
        if self.is_lenient() {
            let severity = severity_of(&detail);
            self.add_as(rule, severity, detail);
            return Ok(());
        }
        Err(self.fatal(rule, detail))
    }

    /// The same of an outcome.
    ///
    /// # Errors
    /// That of `result`, unless it was noted.
    pub(crate) fn require(&mut self, rule: Rule, result: Result<()>) -> Result<()> {
        result.or_else(|detail| self.reject(rule, detail))
    }

    /// The outcome, if there is one; none where it was noted why there is not.
    ///
    /// # Errors
    /// That of `result`, unless it was noted.
    pub(crate) fn accept<T>(&mut self, rule: Rule, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(detail) => self.reject(rule, detail).map(|()| None),
        }
    }

    /// The outcome of something that ended as [`Self::fatal`] says, if there is one; none where it was noted why there is not.
    ///
    /// # Errors
    /// That of `result`, unless it was noted.
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

    /// Both outcomes, each of which ended as [`Self::fatal`] says if it did: where both did, both are noted.
    ///
    /// # Errors
    /// The first of them.
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

    /// The breaches of several rules at once, behind which nobody can go on: all are noted.
    ///
    /// # Errors
    /// The first of them, if there are any.
    pub(crate) fn fatal_all(&mut self, breaches: impl IntoIterator<Item = (Rule, Error)>) -> Result<()> {
        let mut breaches = breaches.into_iter();
        let Some((rule, first)) = breaches.next() else { return Ok(()) };
        for (rule, detail) in breaches {
            self.add_as(rule, severity_of(&detail), detail);
        }
        Err(self.fatal(rule, first))
    }

    /// A breach behind which nobody can go on.
    pub(crate) fn fatal(&mut self, rule: Rule, detail: Error) -> Error {
        self.ended_by = Some(rule);
        detail.breaking(rule)
    }

    /// The rule whose breach was the end, where one was.
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

/// How much an error matters that keeps something from being read.
pub(crate) fn severity_of(error: &Error) -> Severity {
    match error.category() {
        Category::Unsupported => Severity::Unsupported,
        Category::Open | Category::Io | Category::ParentNotFound | Category::DirtyLog => Severity::Unchecked,
        _ => Severity::Corruption,
    }
}
