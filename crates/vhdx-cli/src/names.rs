//! Names of images among several, for exports and directories.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;

use crate::exit::Failure;

/// Names of images in exports: file names without their extensions, or whole paths if these are not unique.
pub(crate) fn names_of(images: &[PathBuf]) -> Result<Vec<Option<String>>, Failure> {
    let stems: Vec<Option<String>> = images.iter().map(|path| path.file_stem().map(text_of)).collect();
    if is_unique(&stems) {
        return Ok(stems);
    }
    let paths: Vec<Option<String>> = images.iter().map(|path| Some(text_of(path.as_os_str()))).collect();
    if is_unique(&paths) { Ok(paths) } else { Err(Failure::usage("the same image is given twice")) }
}

/// A name as text; bytes that are not Unicode are written as `%FF`, so that different names stay different.
fn text_of(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
    }
    text
}

/// Names of images as directories of a mount: those of exports, with `_` for each `/`. `None` for a single image.
#[cfg(target_os = "linux")]
pub(crate) fn directories_of(images: &[PathBuf]) -> Result<Vec<Option<String>>, Failure> {
    if images.len() == 1 {
        return Ok(vec![None]);
    }
    let names = names_of(images)?;
    let named = |name: &Option<String>| {
        let name = name.as_deref().unwrap_or("image").trim_start_matches('/').replace('/', "_");
        Some(if [".", "..", ""].contains(&name.as_str()) { format!("_{name}") } else { name })
    };
    let directories: Vec<Option<String>> = names.iter().map(named).collect();
    if is_unique(&directories) {
        return Ok(directories);
    }
    Err(Failure::usage("two images would have the same directory").with_hint("mount them apart, or rename one"))
}

fn is_unique(names: &[Option<String>]) -> bool {
    names.iter().collect::<BTreeSet<_>>().len() == names.len()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    #[cfg(target_os = "linux")]
    use super::directories_of;
    use super::names_of;

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn names_are_those_of_the_files_unless_they_are_not_unique() {
        let names =
            |given: &[&str]| names_of(&paths(given)).map(|names| names.into_iter().flatten().collect::<Vec<_>>()).ok();
        assert_eq!(names(&["a/b.vhdx", "c.avhdx"]).unwrap(), ["b", "c"]);
        assert_eq!(names(&["a/b.vhdx", "b.vhdx"]).unwrap(), ["a/b.vhdx", "b.vhdx"]);
        assert_eq!(names(&["b.vhdx", "b.vhdx"]), None);
    }

    #[test]
    #[cfg(unix)]
    fn names_that_are_not_unicode_stay_different() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        let paths = [b"\xff.vhdx".as_slice(), b"\xfe.vhdx"].map(|name| PathBuf::from(OsStr::from_bytes(name)));
        let names: Vec<String> = names_of(&paths).unwrap().into_iter().flatten().collect();
        assert_eq!(names, ["%FF", "%FE"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn directories_have_no_slashes() {
        let names = |given: &[&str]| directories_of(&paths(given)).ok();
        let some = |names: &[&str]| Some(names.iter().map(|name| Some((*name).to_owned())).collect::<Vec<_>>());
        assert_eq!(names(&["a/b.vhdx"]), Some(vec![None]));
        assert_eq!(names(&["a/b.vhdx", "c.avhdx"]), some(&["b", "c"]));
        assert_eq!(names(&["/a/b.vhdx", "b.vhdx"]), some(&["a_b.vhdx", "b.vhdx"]));
        assert_eq!(names(&["/a/b.vhdx", "a_b.vhdx", "b.vhdx", "c/b.vhdx"]), None);
        assert_eq!(names(&["...vhdx", "c.vhdx"]), some(&["_..", "c"]));
    }
}
