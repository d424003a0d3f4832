//! Opening a disk for one split of a plan.

use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, OpenOptions, ParentRequest, Parents, Run};
use crate::error::{Error, ErrorKind, Result, Structure};
use crate::image::LogPolicy;
use crate::scan::Input;
use crate::source::Source;

use super::Split;

/// Number of runs that are put into the order of their files at once.
const MOST_RUNS: usize = 1 << 16;

impl Split {
    /// Opens the disk that the split is of: exactly the files that it names, by [`Source::open`].
    ///
    /// # Errors
    /// [`ErrorKind::OtherFiles`] if a file differs from that of the plan, or has been written to since. Otherwise those
    /// of [`Disk::open`].
    pub fn open(&self) -> Result<Disk> {
        self.open_with(|path| Source::open(path))
    }

    /// Opens the disk like [`Split::open`], with the sources that `open` returns for the paths of the files: to map
    /// them, or to read them from elsewhere.
    ///
    /// # Errors
    /// Those of `open` and of [`Split::open`].
    pub fn open_with<P>(&self, open: P) -> Result<Disk>
    where
        P: Fn(&Path) -> Result<Source> + Send + Sync + 'static,
    {
        let Some(first) = self.disk.layers.first() else {
            return Err(Error::of(Structure::File, ErrorKind::OtherFiles { what: "number of layers" }));
        };
        let source = open(&first.path())?;
        let disk = Disk::open(source, &self.open_options(OpenOptions::new(), open))?;
        self.check(&disk).map(|()| disk)
    }

    /// Returns options for opening the disk of the split, from the image on: only the files of the plan are opened as
    /// parents, each by `open`, and their states must be those of the plan. Use [`Split::check`] after that.
    #[must_use]
    pub fn open_options<P>(&self, options: OpenOptions, open: P) -> OpenOptions
    where
        P: Fn(&Path) -> Result<Source> + Send + Sync + 'static,
    {
        let paths: Vec<_> = self.disk.layers.iter().map(super::PlannedLayer::path).collect();
        let find = move |request: &ParentRequest<'_>| {
            let path = request.layer.checked_add(1).and_then(|parent| paths.get(parent));
            path.map(|path| open(path)).transpose()
        };
        self.expect(options.parents(Parents::With(Arc::new(find))))
    }

    /// Adds the expected states of the files to options, which decide where parents are searched: for files that are
    /// elsewhere on this machine.
    #[must_use]
    pub fn expect(&self, options: OpenOptions) -> OpenOptions {
        let log_policy = if self.disk.log_ignored { LogPolicy::Ignore } else { options.log_policy };
        options.log_policy(log_policy).expect(self.disk.fingerprint())
    }

    /// Checks that a disk has the sizes that the split says.
    ///
    /// # Errors
    /// [`ErrorKind::OtherFiles`].
    pub fn check(&self, disk: &Disk) -> Result<()> {
        let file = disk.image().path();
        let other = |what| Err(Error::of(Structure::File, ErrorKind::OtherFiles { what }).in_file(file));
        if disk.size() != self.disk.virtual_size {
            return other("size of the disk");
        }
        if disk.block_size() != self.disk.block_size {
            return other("block size");
        }
        Ok(())
    }

    /// Returns the bytes of the split as the input of an operation.
    #[must_use]
    pub fn input<'d>(&self, disk: &'d Disk) -> Input<'d> {
        Input::disk(disk).range(self.range())
    }

    /// Returns the runs of the split in the order in which their bytes lie in the files: the fastest order for media on
    /// which seeking is slow, and for object stores. Of a split with very many runs, 65,536 neighbours at a time are
    /// ordered. Zeros come first. An error is the last item.
    pub fn runs<'d>(&self, disk: &'d Disk) -> impl Iterator<Item = Result<Run>> + 'd {
        let mut runs = disk.runs(self.range());
        let (mut ordered, mut failed) = (Vec::new().into_iter(), None);
        std::iter::from_fn(move || {
            if let Some(run) = ordered.next() {
                return Some(Ok(run));
            }
            if let Some(error) = failed.take() {
                return Some(Err(error));
            }
            let mut batch: Vec<Run> = Vec::new();
            for run in runs.by_ref().take(MOST_RUNS) {
                match run {
                    Ok(run) => batch.push(run),
                    Err(error) => failed = Some(error),
                }
            }
            batch.sort_by_key(|run| run.file_offset().map(|offset| (run.layer, offset)));
            ordered = batch.into_iter();
            ordered.next().map(Ok).or_else(|| failed.take().map(Err))
        })
    }
}
