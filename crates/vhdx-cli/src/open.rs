//! Opening images as the common options say.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use vhdx_mmap::format::FileIdentifier;
use vhdx_mmap::ops;
use vhdx_mmap::{
    Chain, Disk, ErrorKind, ImageKind, Input, Layer, LogPolicy, LogState, OpenOptions, Parents, Rule, Severity, Source,
    Strictness,
};

use crate::args::{Common, InputFormat, LogChoice, SalvageArgs};
use crate::bulk;
use crate::exit::{Exit, Failure};
use crate::term::{self, escape};

/// Opens the bytes of an image.
pub(crate) fn source(path: &Path, common: &Common) -> Result<Source, Failure> {
    if path == Path::new("-") {
        return Err(
            Failure::usage("an image is read at many places: standard input can't be one").with_hint("name a file")
        );
    }
    if common.no_mmap {
        opened(path, Source::open(path), "where its medium fails, `vhdx extract --salvage` reads what is left")
    } else {
        opened(path, map(path), "the images of a file system that cannot map files are read with --no-mmap")
    }
}

/// What was opened; or why not, and what can be done where the system fails.
fn opened(path: &Path, opened: vhdx_mmap::Result<Source>, hint: &str) -> Result<Source, Failure> {
    let source = opened.map_err(|error| {
        let failure = Failure::of_image(path, &error);
        if is_of_system(&error) { failure.with_hint(hint) } else { failure }
    })?;
    refuse_as_output(&source)?;
    Ok(source)
}

/// Whether the system could not read or map a file.
fn is_of_system(error: &vhdx_mmap::Error) -> bool {
    matches!(error.kind(), ErrorKind::Io(_))
}

/// Whatever a command prints, it must not go into an image.
#[cfg(unix)]
pub(crate) fn refuse_as_output(source: &Source) -> Result<(), Failure> {
    use vhdx_mmap::FileId;

    use crate::exit::STANDARD_OUTPUT;
    use crate::target::standard_output;

    let output = FileId::of_open(&standard_output()?)?;
    if source.id() == Some(output) {
        return Err(Failure::usage(format!("{STANDARD_OUTPUT}: is the image itself, or one of its parents")));
    }
    Ok(())
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "on Unix, standard output tells which file it is")]
pub(crate) fn refuse_as_output(_: &Source) -> Result<(), Failure> {
    Ok(())
}

#[expect(unsafe_code, reason = "the one promise that the command makes for its user")]
pub(crate) fn map(path: &Path) -> vhdx_mmap::Result<Source> {
    // SAFETY: the promise that nobody changes the file cannot be kept by this program; it is the user's, who is told of
    // it in the help of --no-mmap. The program does nothing that depends on mapped bytes keeping their values: each
    // value is fetched once. Where the file becomes shorter, that is an error by `guard_mappings`; any other change is found
    // out at the end by `fail_if_changed`, for the most part, and the worst that it leads to is wrong output.
    unsafe { Source::map(path) }
}

/// Parents are mapped, too.
#[expect(unsafe_code, reason = "the one promise that the command makes for its user")]
fn map_parents(options: OpenOptions) -> OpenOptions {
    // SAFETY: as for `map`.
    unsafe { options.map_parents() }
}

/// Opens an image, and follows its parents as far as that goes.
pub(crate) fn chain(path: &Path, common: &Common) -> Result<Chain, Failure> {
    chain_with(path, common, &options(common))
}

/// The same, as the options say.
pub(crate) fn chain_with(path: &Path, common: &Common, options: &OpenOptions) -> Result<Chain, Failure> {
    let opened = Chain::open(source(path, common)?, options);
    let chain = opened.map_err(|error| Failure::of_image(path, &error))?;
    // The image itself has been looked at already.
    chain.layers().iter().skip(1).try_for_each(|layer| refuse_as_output(layer.image().source()))?;
    Ok(chain)
}

/// Opens an image as a disk, and tells on standard error what is out of the ordinary.
pub(crate) fn disk(path: &Path, common: &Common) -> Result<Disk, Failure> {
    disk_of(chain(path, common)?, path, common, Strictness::Strict)
}

/// The same, damaged images included where the user wants that.
pub(crate) fn salvaged(path: &Path, common: &Common, salvage: &SalvageArgs) -> Result<Disk, Failure> {
    let chain = salvaged_chain(path, common, salvage)?;
    let disk = disk_of(chain, path, common, if salvage.salvage { Strictness::Salvage } else { Strictness::Strict })?;
    tell_shared_blocks(path, &disk, common)?;
    Ok(disk)
}

/// Opens an image, damaged ones included where the user wants that, and follows its parents as far as that goes.
pub(crate) fn salvaged_chain(path: &Path, common: &Common, salvage: &SalvageArgs) -> Result<Chain, Failure> {
    let mut options = salvage.open_options(options(common))?;
    let chain = chain_with(path, common, &options)?;
    let image = chain.layers().first().map(Layer::image);
    let may_be_child = image.is_some_and(|image| {
        let has_locator = || image.warnings().iter().any(|warning| warning.rule == Rule::ParentLocator);
        image.kind() != ImageKind::Differencing && (!common.parent.is_empty() || has_locator())
    });
    if salvage.salvage && may_be_child {
        // It does not say any more that it has a parent, but there is one.
        options.overrides.has_parent = true;
        if let Ok(chain) = chain_with(path, common, &options)
            && chain.broken().is_none()
            && chain.layers().len() > 1
        {
            return Ok(chain);
        }
    }
    Ok(chain)
}

/// Tells of blocks of which all but one must be wrong, though they read without an error.
pub(crate) fn tell_shared_blocks(path: &Path, disk: &Disk, common: &Common) -> Result<(), Failure> {
    if !common.quiet {
        for shared in bulk::pool(common, usize::MAX)?.install(|| ops::shared_blocks(disk)) {
            let text = format!("{}: {shared}: one of them is wrong; `vhdx check` tells all", path.display());
            term::tell("warning", term::WARNING, &escape(&text));
        }
    }
    Ok(())
}

fn disk_of(chain: Chain, path: &Path, common: &Common, strictness: Strictness) -> Result<Disk, Failure> {
    if strictness == Strictness::Salvage
        && let Some(error) = chain.broken()
    {
        term::tell("warning", term::WARNING, &escape(&format!("{}: {error}", path.display())));
    }
    let disk = Disk::from_chain(&chain).map_err(|error| Failure::of_image(path, &error))?;
    if !common.quiet {
        for layer in disk.layers() {
            let name = layer.image().path().unwrap_or(path);
            tell_log_state(name, layer.image().log_state());
        }
        for (layer, warning) in disk.warnings().filter(|(_, warning)| warning.severity > Severity::Note) {
            let name = disk.layers().get(layer).and_then(|layer| layer.image().path()).unwrap_or(path);
            let label = if warning.severity == Severity::Warning { "warning" } else { warning.severity.as_str() };
            term::tell(label, term::WARNING, &escape(&format!("{}: {warning}", name.display())));
        }
    }
    Ok(disk)
}

/// What a command has to say of the images of these layers, unless some file was changed meanwhile: then nobody knows of which
/// state of it that is, be it an error.
pub(crate) fn fail_if_changed<T>(layers: &[Layer], said: Result<T, Failure>) -> Result<T, Failure> {
    layers.iter().fold(said, |said, layer| fail_if_source_changed(layer.image().source(), said))
}

/// The same of one file.
pub(crate) fn fail_if_source_changed<T>(source: &Source, said: Result<T, Failure>) -> Result<T, Failure> {
    let name = source.path().unwrap_or(Path::new("-")).display();
    match (source.has_changed(), said) {
        (Ok(false), said) => said,
        (Err(error), Ok(_)) => Err(Failure::new(Exit::Io, format!("{name}: {error}"))),
        (Err(_), failed) => failed,
        (Ok(true), Ok(_)) => Err(Failure::new(Exit::Io, format!("{name}: changed while it was read"))
            .with_hint("make a copy of the image, or stop whoever writes to it, and try again")),
        (Ok(true), Err(Failure::Said { text, hint, .. })) => {
            let text = format!("{text}; and {name} changed while it was read");
            Err(Failure::Said { exit: Exit::Io, text, hint })
        }
        (Ok(true), stopped) => stopped,
    }
}

/// Something that can be compared with a disk.
pub(crate) enum Operand {
    Disk(Disk),
    Raw(Source),
}

impl Operand {
    pub(crate) fn content(&self) -> Input<'_> {
        match self {
            Self::Disk(disk) => Input::disk(disk),
            Self::Raw(source) => Input::raw(source),
        }
    }

    /// See [`fail_if_changed`].
    pub(crate) fn fail_if_changed<T>(&self, said: Result<T, Failure>) -> Result<T, Failure> {
        match self {
            Self::Disk(disk) => fail_if_changed(disk.layers(), said),
            Self::Raw(source) => fail_if_source_changed(source, said),
        }
    }
}

/// Opens an image as a disk, or a raw file or device as what it is.
pub(crate) fn input(path: &Path, format: InputFormat, common: &Common) -> Result<Operand, Failure> {
    let is_raw = match format {
        InputFormat::Vhdx => false,
        InputFormat::Raw => true,
        InputFormat::Auto => {
            let has_name = path
                .extension()
                .is_some_and(|extension| ["vhdx", "avhdx"].iter().any(|name| extension.eq_ignore_ascii_case(name)));
            // What is called an image and does not begin like one is told so, not taken for something else.
            !has_name && !begins_like_an_image(path)
        }
    };
    if is_raw {
        return source(path, common).map(Operand::Raw);
    }
    let disk = disk(path, common)?;
    tell_shared_blocks(path, &disk, common)?;
    Ok(Operand::Disk(disk))
}

/// Whether the signature of an image is there (MS-VHDX 2.2.1). What can't be read is left to whoever opens it.
fn begins_like_an_image(path: &Path) -> bool {
    let mut signature = [0; 8];
    // Only what can be opened without waiting.
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let read = is_file && File::open(path).and_then(|mut file| file.read_exact(&mut signature)).is_ok();
    read && signature == *FileIdentifier::SIGNATURE.as_bytes()
}

/// A log is never replayed or ignored without a word.
fn tell_log_state(path: &Path, state: &LogState) {
    match state {
        LogState::Clean => {}
        LogState::Replayed(replay) => {
            let entries = replay.entries;
            let text = format!("{}: the log was replayed in memory ({entries} entries)", path.display());
            term::tell("note", term::HINT, &escape(&text));
        }
        LogState::Ignored => {
            let text = format!("{}: the log was ignored; what is read may be stale or torn", path.display());
            term::tell("warning", term::WARNING, &escape(&text));
        }
    }
}

/// The common options in the library's terms.
pub(crate) fn options(common: &Common) -> OpenOptions {
    let log_policy = match common.log {
        LogChoice::Replay => LogPolicy::Replay,
        LogChoice::Refuse => LogPolicy::Refuse,
        LogChoice::Ignore => LogPolicy::Ignore,
    };
    let mut parents = Vec::new();
    if !common.parent.is_empty() {
        parents.push(Parents::Explicit(common.parent.clone()));
    }
    if common.parents != *OsStr::new("none") {
        parents.push(Parents::Beside);
        if common.parents != *OsStr::new("beside") {
            parents.push(Parents::Within(vec![PathBuf::from(&common.parents)]));
        }
    }
    let options = OpenOptions::new().log_policy(log_policy).parents(Parents::FirstOf(parents));
    if common.no_mmap { options } else { map_parents(options) }
}

/// Space that a file takes on its medium, in bytes, if the system says.
#[cfg(unix)]
pub(crate) fn actual_size(file: &std::fs::File) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;

    // The unit of this number is 512 bytes on every system.
    file.metadata().ok()?.blocks().checked_mul(512)
}

#[cfg(not(unix))]
pub(crate) fn actual_size(file: &std::fs::File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.len())
}
