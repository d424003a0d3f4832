//! Blocks with the same file offset read without an error, but all except one are wrong: every command warns.

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB};
use crate::support::{run, temp_dir, vhdx};

#[test]
fn shared_blocks_cause_a_warning() {
    let folder = temp_dir();
    let [sound, shared, child] = ["sound.vhdx", "shared.vhdx", "child.vhdx"].map(|name| folder.path().join(name));
    let spec = Spec { raw_bat: [(2, (4 * MIB) | 6)].into(), ..Spec::default() };
    Spec::default().build().bytes.write_file(&sound).unwrap();
    spec.build().bytes.write_file(&shared).unwrap();
    Spec::child_of(&spec, "shared.vhdx").block(7, Block::full()).build().bytes.write_file(&child).unwrap();
    let warning = "payload block 0 at 0x400000: overlaps payload block 2";
    for (image, is_shared) in [(&sound, false), (&shared, true), (&child, true)] {
        let image = image.to_str().unwrap();
        for command in [&["extract", image, "-"][..], &["hash", image], &["map", image], &["compare", image, image]] {
            let ran = run(&mut vhdx(command));
            assert_eq!(
                (ran.status.code(), ran.err.contains(warning)),
                (Some(0), is_shared),
                "{command:?}: {}",
                ran.err
            );
            let quiet = run(vhdx(command).arg("--quiet"));
            assert_eq!((quiet.status.code(), quiet.err.as_str()), (Some(0), ""), "{command:?}");
        }
        if image.ends_with("child.vhdx") {
            let ran = run(&mut vhdx(["diff", image]));
            assert!(ran.status.code() == Some(0) && ran.err.contains(warning), "{}", ran.err);
        }
        let ran = run(&mut vhdx(["hash", "--salvage", image]));
        assert_eq!(ran.status.code(), Some(if is_shared { 65 } else { 0 }), "{}", ran.err);
    }
}
