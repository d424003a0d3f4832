//! `vhdx extract`: the format follows -O or the extension, and no raw disk gets the name of another format.

use crate::kit::builder::Spec;
use crate::support::temp_dir;

use super::{args, assert_fails, content, names_in, vhdx_run, write_image};

#[test]
fn names_of_other_formats_are_refused_with_a_way_to_write_them() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    for (name, way) in [
        ("out.qcow2", "qemu-img convert -f raw -O qcow2 "),
        ("out.QCOW2", "qemu-img convert -f raw -O qcow2 "),
        ("out.vmdk", "qemu-img convert -f raw -O vmdk "),
        ("out.vdi", "qemu-img convert -f raw -O vdi "),
        ("out.vhdx", "qemu-img convert -f raw -O vhdx "),
        ("out.hdd", "qemu-img convert -f raw -O parallels "),
        ("out.raw.zst", " - | zstd > "),
        ("out.img.gz", " - | gzip > "),
        ("out.E01", " - | ewfacquirestream -t "),
        ("out.ova", "-O raw"),
    ] {
        let ran = vhdx_run(args!["convert", &path, folder.path().join(name)]);
        assert_fails(&ran, 2, &[name, "expected raw or vhd", "vhdx: hint: ", way]);
    }
    for (options, way) in [
        (&["-O", "qcow2"][..], "qemu-img convert -f raw -O qcow2 "),
        (&["-O", "vhdx"], "qemu-img convert -f raw -O vhdx "),
        (&["-O", "frob"], "frob"),
        (&["-O", "raw", "-o", "preallocation=full"], "preallocation=full"),
        (&["-O", "vpc", "-o", "subformat=dynamic"], "subformat=dynamic"),
    ] {
        let options = options.iter().map(Into::into);
        let ran = vhdx_run(args!["convert", &path, folder.path().join("out")].into_iter().chain(options));
        assert_fails(&ran, 2, &[way, "hint"]);
    }
    assert_fails(&vhdx_run(args!["convert", "-O", "qcow2", &path, "-"]), 2, &["-O qcow2 disk.raw disk.qcow2"]);
    assert_eq!(names_in(folder.path()), ["disk.vhdx"]);
}

#[test]
fn extension_or_option_selects_the_format() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let disk = content(&Spec::default());
    let extract = |options: &[&str], name: &str| {
        let out = folder.path().join(name);
        let options = options.iter().map(Into::into);
        vhdx_run(args!["convert", "--force", &path, &out].into_iter().chain(options)).done();
        std::fs::read(out).unwrap()
    };
    let is_vhd = |file: &[u8]| {
        file[..disk.len()] == disk && file.len() == disk.len() + 512 && { file[disk.len()..].starts_with(b"conectix") }
    };
    for name in ["a", "a.raw", "a.img", "a.dd", "a.bin", "disk.2024-01-01"] {
        assert!(extract(&[], name) == disk, "{name}");
    }
    assert!(is_vhd(&extract(&[], "b.vhd")));
    assert!(is_vhd(&extract(&[], "b.VHD")));
    for options in [&["-O", "vhd"][..], &["-O", "vpc"], &["-O", "VPC", "-o", "subformat=fixed,force_size"]] {
        assert!(is_vhd(&extract(options, "c.bin")), "{options:?}");
    }
    // On request, any name.
    assert!(extract(&["-O", "raw"], "d.qcow2") == disk);
    assert!(extract(&["--format", "raw"], "d.vhd") == disk);
}

#[test]
fn command_lines_of_qemu_img_are_understood() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let out = folder.path().join("out.raw");
    for words in [["-f", "vhdx", "-O", "raw"], ["-O", "raw", "-f", "VHDX"]] {
        vhdx_run(
            words
                .iter()
                .map(Into::into)
                .fold(args!["convert"], |mut all, word| {
                    all.push(word);
                    all
                })
                .into_iter()
                .chain(args![&path, &out]),
        )
        .done();
        assert!(std::fs::read(&out).unwrap() == content(&Spec::default()));
        // The format of the image is no permission to replace a file.
        assert_fails(&vhdx_run(args!["convert", "-f", "vhdx", &path, &out]), 73, &["exists already"]);
        vhdx_run(args!["convert", "-f", &path, &out]).done();
        std::fs::remove_file(&out).unwrap();
    }
}
