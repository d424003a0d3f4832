//! Format of an extracted disk: by -O, or by the extension of the output.

use std::path::Path;

use vhdx_mmap::report::ExtractFormat;

use crate::args::ExtractArgs;
use crate::exit::Failure;
use crate::shell::shell_word;

/// Formats of `qemu-img convert`, by extension or name, and their names for its option -O.
const OF_QEMU: [(&str, &str); 10] = [
    ("qcow2", "qcow2"),
    ("qcow", "qcow"),
    ("qed", "qed"),
    ("vmdk", "vmdk"),
    ("vdi", "vdi"),
    ("vhdx", "vhdx"),
    ("avhdx", "vhdx"),
    ("parallels", "parallels"),
    ("hdd", "parallels"),
    ("hds", "parallels"),
];

/// Extensions of files that another program writes from a stream, and its command.
const OF_STREAMS: [(&str, &str); 7] = [
    ("gz", "gzip >"),
    ("zst", "zstd >"),
    ("xz", "xz >"),
    ("lz4", "lz4 >"),
    ("bz2", "bzip2 >"),
    ("7z", "7z a -si"),
    ("e01", "ewfacquirestream -t"),
];

/// Formats that can be named, but neither written nor made by one command.
const OTHERS: [&str; 10] = ["avhd", "vhds", "dmg", "ova", "ovf", "wim", "zip", "tar", "aff4", "luks"];

/// Determines the format of the output. Fails if it is one that `extract` does not write, so that no raw disk gets the
/// name of another format.
pub(crate) fn of_output(args: &ExtractArgs) -> Result<ExtractFormat, Failure> {
    let format = match &args.format {
        Some(name) => named(&name.to_ascii_lowercase())
            .ok_or_else(|| not_written(args, &format!("--format {name}: unknown output format"), name))?,
        None => match by_extension(&args.out) {
            Some(extension) => named(&extension).unwrap_or(ExtractFormat::Raw),
            None => ExtractFormat::Raw,
        },
    };
    if args.format.is_none()
        && let Some(extension) = by_extension(&args.out).filter(|extension| is_other(extension))
    {
        let text = format!("{}: a raw disk would have the extension of another format", args.out.display());
        return Err(not_written(args, &text, &extension));
    }
    let unknown = |option: &&String| {
        format == ExtractFormat::Raw || !["subformat=fixed", "force_size", "force_size=on"].contains(&option.as_str())
    };
    if let Some(option) = args.qemu_options.iter().find(unknown) {
        let text = format!("-o {option}: unknown option (expected subformat=fixed or force_size, with -O vhd)");
        return Err(Failure::usage(text).with_hint("leave out -o"));
    }
    Ok(format)
}

/// A format that `extract` writes, by the names that it has in other programs, too.
fn named(name: &str) -> Option<ExtractFormat> {
    match name {
        "raw" => Some(ExtractFormat::Raw),
        "vhd" | "vpc" => Some(ExtractFormat::Vhd),
        _ => None,
    }
}

fn is_other(extension: &str) -> bool {
    of(&OF_QEMU, extension).is_some() || of(&OF_STREAMS, extension).is_some() || OTHERS.contains(&extension)
}

fn of(all: &[(&str, &'static str)], extension: &str) -> Option<&'static str> {
    all.iter().find(|(name, _)| *name == extension).map(|(_, value)| *value)
}

/// Extension of a file. Names of devices and pipes say nothing about a format.
fn by_extension(out: &Path) -> Option<String> {
    let is_file = std::fs::metadata(out).map_or(true, |metadata| metadata.is_file());
    let extension = out.extension().filter(|_| is_file)?;
    Some(extension.to_str()?.to_ascii_lowercase())
}

fn not_written(args: &ExtractArgs, text: &str, format: &str) -> Failure {
    let format = format.to_ascii_lowercase();
    let failure = Failure::usage(format!("{text} (found {format}, expected raw or vhd)"));
    let is_standard = args.out == Path::new("-");
    let name = if is_standard { Path::new("disk") } else { &args.out };
    // Never the output itself: the next command would overwrite its own source.
    let raw = name.with_extension("raw");
    let raw = shell_word(&if raw == *name { name.with_extension("disk.raw") } else { raw });
    if let Some(format_of_qemu) = of(&OF_QEMU, &format) {
        let out = shell_word(&if is_standard { name.with_extension(&format) } else { name.to_path_buf() });
        return failure.with_hint(format!(
            "extract to {raw}, then run `qemu-img convert -f raw -O {format_of_qemu} {raw} {out}`"
        ));
    }
    if let Some(command) = of(&OF_STREAMS, &format) {
        let (image, out) = (shell_word(&args.image), shell_word(name));
        return failure.with_hint(format!("`vhdx extract {image} - | {command} {out}` writes it"));
    }
    failure.with_hint(format!("extract to {raw}, and convert that; -O raw writes a raw disk under any name"))
}
