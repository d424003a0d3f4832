//! Plans and splits as Python has them: documents, which belong to no open disk.

use std::path::PathBuf;

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use vhdx_mmap::ops::plan;
use vhdx_mmap::report;

use crate::json::{invalid, json};

/// A plan. `vhdx_mmap.Plan` is the class to use.
#[pyclass(frozen, module = "vhdx_mmap._native")]
pub(crate) struct PlanBase(pub(crate) plan::Plan);

#[pymethods]
impl PlanBase {
    /// Read a plan from its JSON, and check that it is consistent.
    #[new]
    fn new(text: &str) -> PyResult<Self> {
        serde_json::from_str::<report::Plan>(text).map(|found| Self(found.plan)).map_err(invalid)
    }

    fn json(&self) -> PyResult<String> {
        json(&report::Plan::from(self.0.clone()))
    }

    fn __len__(&self) -> usize {
        self.0.ranges().len()
    }

    /// The split with a number, from 1.
    fn split(&self, number: u32) -> PyResult<SplitBase> {
        self.0.split(number).map(SplitBase).ok_or_else(|| PyIndexError::new_err("no such split"))
    }
}

/// A split. `vhdx_mmap.Split` is the class to use.
#[pyclass(frozen, module = "vhdx_mmap._native")]
pub(crate) struct SplitBase(pub(crate) plan::Split);

#[pymethods]
impl SplitBase {
    /// Read a split from its JSON, and check that it is consistent.
    #[new]
    fn new(text: &str) -> PyResult<Self> {
        serde_json::from_str::<report::Split>(text).map(|found| Self(found.split)).map_err(invalid)
    }

    fn json(&self) -> PyResult<String> {
        json(&report::Split::from(self.0.clone()))
    }

    /// Path of the opened image.
    fn path(&self) -> Option<PathBuf> {
        self.0.disk().layers.first().map(plan::PlannedLayer::path)
    }

    /// Begin and end of what a search reads.
    fn search_range(&self) -> (u64, u64) {
        let range = self.0.search_range();
        (range.start, range.end)
    }
}
