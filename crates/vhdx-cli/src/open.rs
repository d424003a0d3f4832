//! Opens images according to the common options.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use vhdx_mmap::format::FileIdentifier;
use vhdx_mmap::{
    Chain, Disk, ErrorKind, FoundBy, ImageKind, Input, Layer, LogPolicy, LogState, OpenOptions, Parents, Rule,
    Severity, Source, Strictness,
};

use crate::args::{Common, InputFormat, LogChoice, SalvageArgs};
use crate::exit::{Exit, Failure};
use crate::findings;
use crate::siblings;
use crate::size::counted;
use crate::term::{self, escape};

/// Opens the bytes of a parent that a plan names.
pub(crate) fn plain_source(path: &Path, common: &Common) -> vhdx_mmap::Result<Source> {
    if common.no_mmap { open(path, common) } else { map_image(path, common) }
}

/// Opens the bytes of an image.
pub(crate) fn source(path: &Path, common: &Common) -> Result<Source, Failure> {
    if path == Path::new("-") {
        let failure = Failure::usage("-: standard input cannot be an image (found a stream, expected a file)");
        return Err(failure.with_hint("write the image to a file first, and name that"));
    }
    reject_path_as_output(path)?;
    let source = plain_source(path, common).map_err(|error| {
        let failure = Failure::of_image(path, &error);
        let cannot_map = !common.no_mmap && matches!(error.kind(), ErrorKind::Io(_));
        let hint = "pass --no-mmap: it works on file systems that cannot map files";
        if cannot_map { failure.with_hint(hint) } else { failure }
    })?;
    reject_as_output(&source)?;
    Ok(source)
}

/// Opens a file to be read piece by piece.
fn open(path: &Path, common: &Common) -> vhdx_mmap::Result<Source> {
    if common.no_follow { Source::open_without_links(path) } else { Source::open(path) }
}

#[expect(unsafe_code, reason = "the command relies on its user for this")]
fn map_image(path: &Path, common: &Common) -> vhdx_mmap::Result<Source> {
    // SAFETY: as for `map`.
    if common.no_follow { unsafe { Source::map_without_links(path) } } else { map(path) }
}

/// Warns if another program has the file open for writing.
pub(crate) fn warn_if_in_use(source: &Source, common: &Common) {
    if !common.quiet && source.in_use() == Some(true) {
        let name = source.path().unwrap_or(Path::new("-")).display();
        let text = format!("{name}: in use: another program has it open for writing, so its content may change");
        term::message("warning", term::WARNING, &escape(&text));
    }
}

/// Fails if standard output is an image: the text would overwrite it.
#[cfg(unix)]
pub(crate) fn reject_as_output(source: &Source) -> Result<(), Failure> {
    use vhdx_mmap::FileId;

    use crate::target::standard_output;

    let output = FileId::of_open(&standard_output()?)?;
    if source.id() == Some(output) { Err(output_is_image()) } else { Ok(()) }
}

/// Fails if standard output is the file at `path`, which may not be an image that can be opened.
#[cfg(unix)]
pub(crate) fn reject_path_as_output(path: &Path) -> Result<(), Failure> {
    use vhdx_mmap::FileId;

    use crate::target::standard_output;

    // A path without a file is reported when it is opened.
    let Ok(id) = FileId::of(path) else { return Ok(()) };
    if id == FileId::of_open(&standard_output()?)? { Err(output_is_image()) } else { Ok(()) }
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "fallible on Unix, where standard output can be identified")]
pub(crate) fn reject_path_as_output(_: &Path) -> Result<(), Failure> {
    Ok(())
}

/// The failure if standard output is an image. From now on nothing can be written to it, not even the failure as JSON.
#[cfg(unix)]
fn output_is_image() -> Failure {
    use crate::exit::STANDARD_OUTPUT;

    let null = std::fs::OpenOptions::new().write(true).open("/dev/null");
    if let Err(error) = null.and_then(|null| Ok(rustix::stdio::dup2_stdout(null)?)) {
        return Failure::new(Exit::Io, format!("{STANDARD_OUTPUT}: is an image, and cannot be closed: {error}"));
    }
    Failure::usage(format!("{STANDARD_OUTPUT}: is the image itself or one of its parents"))
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "fallible on Unix, where standard output can be identified")]
pub(crate) fn reject_as_output(_: &Source) -> Result<(), Failure> {
    Ok(())
}

#[expect(unsafe_code, reason = "the command relies on its user for this")]
pub(crate) fn map(path: &Path) -> vhdx_mmap::Result<Source> {
    // SAFETY: this program cannot keep others from changing the file; the help of --no-mmap asks the user not to.
    // Nothing here depends on mapped bytes keeping their values: each value is fetched once. If the file is truncated,
    // `guard_mappings` makes that an error. `fail_if_changed` detects most other changes at the end, and the worst
    // effect of the rest is wrong output.
    unsafe { Source::map(path) }
}

/// Lets the library map parents, too.
#[expect(unsafe_code, reason = "the command relies on its user for this")]
fn map_parents(options: OpenOptions) -> OpenOptions {
    // SAFETY: as for `map`.
    unsafe { options.map_parents() }
}

/// Opens an image and its parents, up to the first parent that cannot be opened.
pub(crate) fn chain(path: &Path, common: &Common) -> Result<Chain, Failure> {
    chain_with_options(path, common, &options(common))
}

/// Opens an image and its parents with the given options.
pub(crate) fn chain_with_options(path: &Path, common: &Common, options: &OpenOptions) -> Result<Chain, Failure> {
    let opened = Chain::open(source(path, common)?, options);
    let chain = opened.map_err(|error| Failure::of_image(path, &error))?;
    // `source` has checked the image itself.
    chain.layers().iter().skip(1).try_for_each(|layer| reject_as_output(layer.image().source()))?;
    Ok(chain)
}

/// Opens an image as a disk, and prints notes and warnings on standard error.
pub(crate) fn disk(path: &Path, common: &Common) -> Result<Disk, Failure> {
    disk_of(chain(path, common)?, path, common, Strictness::Strict)
}

/// Opens an image as a disk with the parents that are found: for work that needs the tables of the image only.
pub(crate) fn disk_so_far(path: &Path, common: &Common) -> Result<Disk, Failure> {
    let chain = chain(path, common)?;
    if chain.broken().is_none() && !chain.needs_parent() {
        return disk_of(chain, path, common, Strictness::Strict);
    }
    let disk = Disk::so_far(&chain);
    report_findings(&disk, path, common)?;
    Ok(disk)
}

/// Opens an image as a disk; with --salvage, a damaged one, too.
pub(crate) fn salvaged(path: &Path, common: &Common, salvage: &SalvageArgs) -> Result<Disk, Failure> {
    salvaged_with(path, common, salvage, options(common))
}

/// Opens an image as a disk with the given options; with --salvage, a damaged one, too.
pub(crate) fn salvaged_with(
    path: &Path,
    common: &Common,
    salvage: &SalvageArgs,
    options: OpenOptions,
) -> Result<Disk, Failure> {
    let chain = salvaged_chain_with(path, common, salvage, options)?;
    disk_of(chain, path, common, if salvage.salvage { Strictness::Salvage } else { Strictness::Strict })
}

/// Opens an image and its parents, up to the first that cannot be opened; with --salvage, damaged images, too.
pub(crate) fn salvaged_chain(path: &Path, common: &Common, salvage: &SalvageArgs) -> Result<Chain, Failure> {
    salvaged_chain_with(path, common, salvage, options(common))
}

fn salvaged_chain_with(
    path: &Path,
    common: &Common,
    salvage: &SalvageArgs,
    options: OpenOptions,
) -> Result<Chain, Failure> {
    let mut options = salvage.open_options(options)?;
    let chain = chain_with_options(path, common, &options)?;
    let image = chain.layers().first().map(Layer::image);
    let may_be_child = image.is_some_and(|image| {
        let has_locator = || image.warnings().iter().any(|warning| warning.rule == Rule::ParentLocator);
        image.kind() != ImageKind::Differencing && (!common.parent.is_empty() || has_locator())
    });
    if salvage.salvage && may_be_child {
        // The parent flag may be lost: try to open it as a child.
        options.overrides.has_parent = true;
        if let Ok(chain) = chain_with_options(path, common, &options)
            && chain.broken().is_none()
            && chain.layers().len() > 1
        {
            return Ok(chain);
        }
    }
    Ok(chain)
}

/// Makes a disk of a chain, and prints notes and warnings on standard error.
pub(crate) fn disk_of(chain: Chain, path: &Path, common: &Common, strictness: Strictness) -> Result<Disk, Failure> {
    if strictness == Strictness::Salvage
        && let Some(error) = chain.broken()
    {
        term::message("warning", term::WARNING, &escape(&format!("{}: {error:#}", path.display())));
    }
    let disk = Disk::from_chain(&chain).map_err(|error| Failure::of_image(path, &error))?;
    report_findings(&disk, path, common)?;
    Ok(disk)
}

/// Prints notes and warnings about all layers on standard error.
fn report_findings(disk: &Disk, path: &Path, common: &Common) -> Result<(), Failure> {
    if !common.quiet {
        for layer in disk.layers() {
            let name = layer.image().path().unwrap_or(path);
            warn_if_in_use(layer.image().source(), common);
            report_log_state(name, layer.image().log_state());
            if let Some(link) = layer.link().filter(|link| link.found_by == FoundBy::Identity) {
                let others = match link.others {
                    0 => String::new(),
                    others => format!(
                        "; of {} files with that identity, it is the longest that can be used",
                        others.saturating_add(1)
                    ),
                };
                let found = "the parent was found by its identity, under another name";
                let text = format!("{}: {found}{others}", name.display());
                term::message("note", term::HINT, &escape(&text));
            }
        }
        for (layer, warning) in disk.warnings().filter(|(_, warning)| warning.severity > Severity::Note) {
            let name = disk.layers().get(layer).and_then(|layer| layer.image().path()).unwrap_or(path);
            let label = if warning.severity == Severity::Warning { "warning" } else { warning.severity.as_str() };
            term::message(label, term::WARNING, &escape(&format!("{}: {warning}", name.display())));
        }
        siblings::warn(path, disk.image(), common);
    }
    findings::warn_of_content(path, disk, common)
}

const STOP_WRITER: &str = "stop the program that writes to the image, or copy the image, and try again";

/// The result of a command, or a failure if a file of the layers changed meanwhile: then the result may be of any state
/// of the file, also if it is an error.
pub(crate) fn fail_if_changed<T>(layers: &[Layer], result: Result<T, Failure>) -> Result<T, Failure> {
    layers.iter().fold(result, |result, layer| fail_if_source_changed(layer.image().source(), result))
}

/// The result of a command, or a failure if the file changed meanwhile.
pub(crate) fn fail_if_source_changed<T>(source: &Source, result: Result<T, Failure>) -> Result<T, Failure> {
    let name = source.path().unwrap_or(Path::new("-")).display();
    match (source.has_changed(), result) {
        (Ok(false), result) => result,
        (Err(error), Ok(_)) => Err(Failure::new(Exit::Io, format!("{name}: {error}"))),
        (Err(_), failed) => failed,
        (Ok(true), Ok(_)) => {
            Err(Failure::new(Exit::Io, format!("{name}: changed while it was read")).with_hint(STOP_WRITER))
        }
        (Ok(true), Err(Failure::Message { text, .. })) => {
            let text = format!("{text}; and {name} changed while it was read");
            Err(Failure::new(Exit::Io, text).with_hint(STOP_WRITER))
        }
        (Ok(true), failed) => failed,
    }
}

/// Input of a comparison.
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
    pub(crate) fn fail_if_changed<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        match self {
            Self::Disk(disk) => fail_if_changed(disk.layers(), result),
            Self::Raw(source) => fail_if_source_changed(source, result),
        }
    }
}

/// Opens an image as a disk, or a raw file or device.
pub(crate) fn input(path: &Path, format: InputFormat, common: &Common) -> Result<Operand, Failure> {
    let is_raw = match format {
        InputFormat::Vhdx => false,
        InputFormat::Raw => true,
        InputFormat::Auto => is_raw(path, common),
    };
    if is_raw {
        return source(path, common).map(Operand::Raw);
    }
    disk(path, common).map(Operand::Disk)
}

/// Whether a file is a raw disk. One with the name of an image is opened as one, so that a wrong signature is reported.
pub(crate) fn is_raw(path: &Path, common: &Common) -> bool {
    let has_name = path
        .extension()
        .is_some_and(|extension| ["vhdx", "avhdx"].iter().any(|name| extension.eq_ignore_ascii_case(name)));
    !has_name && !opens_like_an_image(open(path, common).ok().as_ref())
}

/// Whether the file begins with the signature of an image (MS-VHDX 2.2.1). Errors are reported when it is opened.
pub(crate) fn begins_like_an_image(path: &Path) -> bool {
    opens_like_an_image(Source::open(path).ok().as_ref())
}

fn opens_like_an_image(opened: Option<&Source>) -> bool {
    let mut signature = [0; 8];
    let read = opened.and_then(Source::file).is_some_and(|mut file| file.read_exact(&mut signature).is_ok());
    read && signature == *FileIdentifier::SIGNATURE.as_bytes()
}

/// Reports a log that was replayed or ignored.
fn report_log_state(path: &Path, state: &LogState) {
    match state {
        LogState::Replayed(replay) => {
            let entries = counted(replay.entries, "entry");
            let text = format!("{}: the log was replayed in memory ({entries})", path.display());
            term::message("note", term::HINT, &escape(&text));
        }
        LogState::Ignored => {
            let text = format!("{}: the log was ignored: content may be stale or torn", path.display());
            term::message("warning", term::WARNING, &escape(&text));
        }
        // Clean; or unknown: that both headers are lost is a warning already.
        _ => {}
    }
}

/// The common options as options of the library.
pub(crate) fn options(common: &Common) -> OpenOptions {
    let options = unmapped_options(common);
    if common.no_mmap { options } else { map_parents(options) }
}

/// Options that remember what is in folders: many images may have their parents there.
static OPTIONS: LazyLock<OpenOptions> = LazyLock::new(|| OpenOptions::new().remember_folders());

/// The common options, for images that are read piece by piece.
pub(crate) fn unmapped_options(common: &Common) -> OpenOptions {
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
    let options = OPTIONS.clone().log_policy(log_policy).parents(Parents::FirstOf(parents));
    if common.no_follow { options.without_links() } else { options }
}

/// Space that a file occupies on the drive, in bytes, if the system provides it.
#[cfg(unix)]
pub(crate) fn actual_size(file: &std::fs::File) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;

    // Every system counts in units of 512 bytes.
    file.metadata().ok()?.blocks().checked_mul(512)
}

#[cfg(not(unix))]
pub(crate) fn actual_size(file: &std::fs::File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.len())
}
