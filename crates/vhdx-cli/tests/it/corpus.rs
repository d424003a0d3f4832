//! Images made by other programs look healthy if they are. `VHDX_CORPUS` names their folder, with the default
//! `../shared/corpus`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{root, run, skip, vhdx};

/// Unpacks the images to a folder of this name.
pub(crate) fn corpus(name: &str) -> Option<PathBuf> {
    let packed = std::env::var_os("VHDX_CORPUS").map_or_else(|| root().join("../shared/corpus"), PathBuf::from);
    if !packed.join("unpack.sh").exists() {
        skip("corpus", "no corpus of foreign images (VHDX_CORPUS names its folder)");
        return None;
    }
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let status = Command::new("bash").arg(packed.join("unpack.sh")).arg(&unpacked).status().unwrap();
    assert!(status.success(), "unpack.sh: {status}");
    Some(unpacked)
}

/// What the command says about an image, except for what it says about any image.
fn remarks(path: &Path) -> Vec<String> {
    let remarks = |ran: crate::support::Ran| -> Vec<String> {
        let is_usual = |line: &str| {
            let ends = ["no errors were found on the image.", " fragmented.", "replayed in memory."];
            ends.iter().any(|end| line.ends_with(end))
        };
        let out = ran.text().lines().filter(|line| !is_usual(line)).map(str::to_owned).collect::<Vec<_>>();
        out.into_iter().chain(ran.err.lines().map(str::to_owned)).collect()
    };
    let mut all = remarks(run(vhdx(["check"]).arg(path)));
    let info = run(vhdx(["info", "--no-siblings"]).arg(path));
    let is_remark = |line: &&str| ["warning:", "note", "corruption:"].iter().any(|start| line.starts_with(start));
    all.extend(info.text().lines().filter(is_remark).map(str::to_owned));
    all.extend(info.err.lines().map(str::to_owned));
    all
}

#[test]
fn healthy_images_have_no_more_than_a_line_about_notes() {
    let Some(corpus) = corpus("corpus") else { return };
    let (mut healthy, mut wrong) = (0, Vec::new());
    for name in ["windows", "foreign"] {
        let folder = corpus.join(name);
        let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        for record in manifest["images"].as_array().unwrap().iter().filter(|record| record["expect"] == "read") {
            let path = folder.join(record["file"].as_str().unwrap());
            let ran = run(vhdx(["check", "--strict"]).arg(&path));
            // Old content in unused space, and edits by hand, are what some images are about.
            let is_edited = name == "foreign" && ran.status.code() != Some(0);
            if is_edited {
                assert!(matches!(ran.status.code(), Some(1..=3)), "{}", path.display());
                continue;
            }
            healthy += 1;
            let remarks = remarks(&path);
            let is_line = |line: &String| line.contains("harmless note") && line.contains("(-v shows ");
            // One line of each of the two commands.
            if remarks.len() > 2 || !remarks.iter().all(is_line) {
                wrong.push(format!("{}: {remarks:#?}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(healthy >= 55, "{healthy} images are healthy");
}
