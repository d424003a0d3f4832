//! The native part of the Python package `vhdx_mmap`: classes and functions that the modules in `python/vhdx_mmap`
//! give their form. `python/vhdx_mmap/_native.pyi` describes them.
//!
//! - Errors of the library become exceptions, panics too. Nothing ends the interpreter.
//! - Whatever may read a file lets other threads run, and so do readers of Python below a disk.
//! - `unsafe` is in `buffer.rs`, for the buffer protocol, and in `source.rs`, where the promise of `mmap=True` is
//!   passed on. Nothing else compiles with it.

mod arrow;
mod buffer;
mod disk;
mod ending;
mod error;
mod files;
mod json;
mod open;
mod ops;
mod plan;
mod rows;
mod source;
mod split;
mod walk;
mod work;

use pyo3::prelude::*;

/// The native part of `vhdx_mmap`.
#[pymodule(gil_used = false)]
mod _native {
    use super::*;

    #[pymodule_export]
    use super::arrow::Table;
    #[pymodule_export]
    use super::buffer::Data;
    #[pymodule_export]
    use super::disk::DiskBase;
    #[pymodule_export]
    use super::files::{FileBase, VolumeBase};
    #[pymodule_export]
    use super::ops::{changes, check, compare, create_manifest, extract, hash, info, layout, verify};
    #[pymodule_export]
    use super::plan::{
        check_share, diff_share, extract_share, hash_each, hash_share, make_plan, manifest_share, merge,
    };
    #[pymodule_export]
    use super::rows::{Cut, Extent, Lost, Rows, Zeros};
    #[pymodule_export]
    use super::split::{PlanBase, SplitBase};

    /// Version of the package.
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name that Python packages use")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// Readers of file systems may panic on hostile structures, and these panics become exceptions: without a message
    /// of its own.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        ending::listen(module)?;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !vhdx_files::is_panic_caught() {
                before(info);
            }
        }));
        Ok(())
    }

    /// Install the handler that makes the loss of a mapped page an exception, on top of those that were installed
    /// since. Returns whether it is installed.
    #[pyfunction]
    fn guard_mappings() -> bool {
        source::guard()
    }

    /// Whether that handler is the one that the system calls first.
    #[pyfunction]
    fn guard_is_active() -> bool {
        #[cfg(unix)]
        return vhdx_mmap::guard_is_active();
        #[cfg(not(unix))]
        return false;
    }

    /// The identity of an image (DataWriteGuid), of which the headers are read alone.
    #[pyfunction]
    fn identity(source: &Bound<'_, PyAny>) -> PyResult<String> {
        let py = source.py();
        let opened = source::open(source, false)?.map_err(|error| error::of(py, &error))?;
        let header = ending::detach(py, || vhdx_mmap::Image::identity(&opened.source))?;
        header.map(|header| header.data_write_guid.to_string()).map_err(|error| error::of(py, &error))
    }
}
