//! Files that are given in place of an image: the step that helps.

use std::path::Path;

use vhdx_mmap::{FormatGroup, OtherFormat};

use crate::shell::shell_word;

/// What to do with a file of this format. `is_searched`: a search for the regions of an image has found nothing in it.
pub(crate) fn step(path: &Path, format: OtherFormat, is_searched: bool) -> String {
    let file = shell_word(path);
    match format.group {
        FormatGroup::Packed => packed(path, format.key),
        FormatGroup::Archive => format!("unpack it first, and name the image in it: `{} {file}`", unpacker(format.key)),
        FormatGroup::Encrypted => "decrypt it first, and name the image in it".to_owned(),
        FormatGroup::DiskImage => disk_image(path, format.key),
        FormatGroup::RawDisk => "it is a disk already: use it without a conversion".to_owned(),
        FormatGroup::VirtualMachine => virtual_machine(path, format.key),
        FormatGroup::ServerAnswer if format.key == "text" => "name a VHDX or AVHDX image; if this was saved in \
                                                              place of one, download the file again"
            .to_owned(),
        FormatGroup::ServerAnswer => {
            "this was saved in place of the file, such as an error or a sign-in page: download the file again"
                .to_owned()
        }
        FormatGroup::Pointer => pointer(&file, format.key),
        FormatGroup::NoContent => "the download or the copy did not begin, or this is the placeholder of a cloud \
                                   folder: fetch the file again"
            .to_owned(),
        FormatGroup::OtherFile => "name a VHDX or AVHDX image".to_owned(),
        _ if is_searched => format!(
            "a search found no part of an image in it: if it is one, `vhdx extract --salvage --assume \
             block-size=SIZE,disk-size=SIZE,sector-size=SIZE {file} disk.raw` looks for its table; or look for another \
             copy of the file"
        ),
        _ => format!(
            "only VHDX and AVHDX images can be read; `vhdx extract --salvage {file} disk.raw` searches for the rest of \
             one"
        ),
    }
}

/// The name of a file with another end, as a word of a command line.
fn renamed(path: &Path, extension: &str) -> String {
    shell_word(&path.with_extension(extension))
}

fn packed(path: &Path, key: &str) -> String {
    let program = match key {
        "gzip" | "compress" => "gzip",
        "lzma" => "xz --format=lzma",
        other => other,
    };
    let file = shell_word(path);
    format!("unpack it first: `{program} -dc < {file} > {}`", renamed(path, "unpacked.vhdx"))
}

fn unpacker(key: &str) -> &'static str {
    match key {
        "zip" => "unzip",
        "tar" => "tar -xf",
        _ => "7z x",
    }
}

fn disk_image(path: &Path, key: &str) -> String {
    let (file, out) = (shell_word(path), renamed(path, "raw"));
    let format = match key {
        "vhd" | "vhd-fixed" => "vpc",
        "vmdk-descriptor" => "vmdk",
        "vmdk" | "vdi" | "qcow" | "qcow2" | "qed" | "parallels" | "dmg" => key,
        "ewf" | "ewf2" => return format!("ewfmount shows it as a raw disk: `ewfmount {file} FOLDER`"),
        "ewf-logical" => return "it holds files, not a disk: `ewfmount -f files` shows them".to_owned(),
        _ => return "only VHDX and AVHDX images can be read: export the disk with the program that made it".to_owned(),
    };
    format!("qemu-img makes a raw disk of it: `qemu-img convert -f {format} -O raw {file} {out}`")
}

fn virtual_machine(path: &Path, key: &str) -> String {
    match key {
        // The list of changes of `disk.vhdx` is `disk.vhdx.rct`.
        "rct" | "mrt" => format!("name the disk itself: {}", shell_word(&path.with_extension(""))),
        "vhds" => "name the .avhdx file of the set, which is beside it and has the content".to_owned(),
        _ => "name a disk of the machine: its files end with .vhdx or .avhdx".to_owned(),
    }
}

fn pointer(file: &str, key: &str) -> String {
    match key {
        "git-lfs" => format!("`git lfs pull --include {file}` fetches the file"),
        "git-annex" => format!("`git annex get {file}` fetches the file"),
        "symlink" | "lnk" | "alias" | "desktop" => "name the file to which it points".to_owned(),
        "url" | "webloc" => "download the file to which it leads".to_owned(),
        _ => "download the file that it describes".to_owned(),
    }
}
