//! `vhdx merge`: merges the results of all shares of the work on a disk.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use vhdx_mmap::ops::manifest::{self, ManifestError, Merged};
use vhdx_mmap::report::Merge;
use vhdx_mmap::{FileId, ScanError, ScanOptions};

use crate::args::MergeArgs;
use crate::cmd::hash;
use crate::cmd::merge_reports::{self, Input};
use crate::exit::{Exit, Failure, STANDARD_OUTPUT};
use crate::json;
use crate::open;
use crate::progress::Work;
use crate::shell::shell_word;
use crate::target::{Consent, Destination};
use crate::term;

pub(crate) fn run(args: &MergeArgs) -> Result<Exit, Failure> {
    let out = args.manifest.as_deref().unwrap_or(Path::new(STANDARD_OUTPUT));
    // Opened first, so that a missing file is reported as such.
    let shards = args.shards.iter().map(|path| Input::open(path)).collect::<Result<Vec<_>, _>>()?;
    if let Some(kind) = shards.iter().find_map(|shard| shard.kind) {
        if args.manifest.is_some() {
            return Err(
                Failure::usage("--manifest: these are no shards of a manifest").with_hint("leave out --manifest")
            );
        }
        if let Some(other) = shards.iter().find(|shard| shard.kind != Some(kind)) {
            let text = format!("{}: not a result of the same command as the others", other.path.display());
            return Err(Failure::new(Exit::Corrupt, text));
        }
        return merge_reports::run(kind, shards);
    }
    let shards = shards.into_iter().map(|shard| shard.content).collect();
    let failed = |error: ScanError| match &error {
        ScanError::Manifest(ManifestError::Format { document, .. }) => {
            let path = args.shards.get(*document).map_or(Path::new("shards"), PathBuf::as_path);
            let failure = Failure::new(Exit::Corrupt, format!("{}: {error}", path.display()));
            if !open::begins_like_an_image(path) {
                return failure;
            }
            let is_child = |path: &&PathBuf| path.extension().is_some_and(|name| name.eq_ignore_ascii_case("avhdx"));
            let newest = shell_word(args.shards.iter().rfind(is_child).map_or(path, PathBuf::as_path));
            let hint = "it is an image, not a result of `vhdx hash --shard`; checkpoints are read with their parents";
            failure.with_hint(format!("{hint}: `vhdx extract {newest} disk.raw`"))
        }
        ScanError::Manifest(ManifestError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Failure::ClosedPipe { bulk: true }
        }
        _ => Failure::new(Exit::Io, format!("{}: {error}", out.display())),
    };
    let Some(manifest) = &args.manifest else {
        let merged = manifest::merge(shards, &mut json::stdout()).map_err(failed)?;
        if let Merged::Digests { digests, about } = merged {
            hash::print_merged(&digests, &about, args.output.is_json())?;
        }
        return Ok(Exit::Done);
    };
    let consent = Consent { force: args.force, in_place: false };
    let destination = Destination::new(manifest, &[], consent)?;
    let own = FileId::of(manifest).ok();
    if args.shards.iter().any(|shard| own.is_some() && FileId::of(shard).ok() == own) {
        return Err(Failure::usage(format!("{}: is one of the inputs", manifest.display())));
    }
    let work = Work::silent();
    // A signal must not leave a partial manifest.
    work.listen().map_err(|error| Failure::new(Exit::Io, format!("signal handler: {error}")))?;
    let target = destination.open(0, 0, false)?;
    let options = ScanOptions::new().progress(&work);
    let stoppable = Stoppable { file: target.file(), work: &work };
    let merged = manifest::merge_with(shards, &options, &mut BufWriter::new(stoppable));
    if let Some(signal) = work.signal() {
        return Err(Failure::Interrupted { signal });
    }
    match merged.map_err(failed)? {
        Merged::Manifest(roots) => {
            target.complete(false)?;
            if args.output.is_json() {
                json::print(&Merge::of(manifest, &roots))?;
            } else {
                term::print_names(&hash::root_lines(manifest, &roots))?;
            }
            Ok(Exit::Done)
        }
        _ => Err(Failure::usage("--manifest: the shards are of digests (expected shards of a manifest)")
            .with_hint("leave out --manifest to print the digests")),
    }
}

/// File that rejects writes after a signal.
struct Stoppable<'w> {
    file: &'w File,
    work: &'w Work,
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.work.signal().is_some() {
            return Err(io::Error::other("interrupted"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
