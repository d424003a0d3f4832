//! Names of images among several, for exports and directories.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;

use crate::exit::Failure;

/// Names of images in exports: file names without their extensions, or whole paths if these are not unique.
pub(crate) fn names_of(images: &[PathBuf]) -> Result<Vec<Option<String>>, Failure> {
    let lossy = |text: &OsStr| text.to_string_lossy().into_owned();
    let stems: Vec<Option<String>> = images.iter().map(|path| path.file_stem().map(lossy)).collect();
    if is_unique(&stems) {
        return Ok(stems);
    }
    let paths: Vec<Option<String>> = images.iter().map(|path| Some(lossy(path.as_os_str()))).collect();
    if is_unique(&paths) { Ok(paths) } else { Err(Failure::usage("the same image is given twice")) }
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
