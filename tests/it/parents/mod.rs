//! Parents: where they are searched, which files are accepted, and the errors if there is none.
#![cfg(all(feature = "mmap", unix))]

mod confinement;
mod finding;
mod identity;
mod reading;
mod untouched;

use std::path::{Path, PathBuf};

use vhdx_mmap::{Chain, Disk, Error, FoundBy, OpenOptions, ParentLink, ParentRejection, Parents};

use crate::kit::builder::{Locator, Spec};
use crate::kit::{Block, MIB, Model};
use crate::support::map;

/// A base with content.
fn base() -> Spec {
    Spec::empty(4 * MIB).block(0, Block::full()).block(2, Block::full())
}

/// A child of it with one block of its own, and these stored paths: relative, absolute, volume.
fn child_by(paths: [Option<&str>; 3]) -> Spec {
    let base = base();
    let mut child = Spec::child_of(&base, "base.vhdx").block(1, Block::full());
    let mut locator = Locator::linked_to(base.data_write_guid, "base.vhdx");
    for (key, path) in ["relative_path", "absolute_win32_path", "volume_path"].into_iter().zip(paths) {
        match path {
            Some(path) => locator.set(key, path),
            None => locator.remove(key),
        }
    }
    child.locator = Some(locator);
    child
}

/// A child with a stored relative path only.
fn child_at(relative_path: &str) -> Spec {
    child_by([Some(relative_path), None, None])
}

/// Writes an image, and makes its folders.
fn write(folder: &Path, name: &str, spec: &Spec) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    spec.build().bytes.write_file(&path).unwrap();
    path
}

fn options(parents: Parents) -> OpenOptions {
    OpenOptions::new().parents(parents)
}

fn chain(path: &Path, parents: Parents) -> Chain {
    Chain::open(map(path), &options(parents)).unwrap()
}

/// Returns the file that is accepted as the parent, and how it was found.
#[track_caller]
fn found(path: &Path, parents: Parents) -> (PathBuf, FoundBy) {
    let chain = chain(path, parents);
    assert!(chain.broken().is_none(), "{}", chain.broken().unwrap());
    let layer = &chain.layers()[1];
    let ParentLink { found_by, .. } = layer.link().unwrap();
    (layer.image().path().unwrap().canonicalize().unwrap(), found_by)
}

/// Returns why no parent is accepted.
#[track_caller]
fn refused(path: &Path, parents: Parents) -> Error {
    Disk::open(map(path), &options(parents)).unwrap_err()
}

/// Returns a few words for each path that was tried.
fn outcomes(error: &Error) -> Vec<(String, &'static str)> {
    use vhdx_mmap::ErrorKind::{ParentMismatch, ParentNotFound};

    let (ParentMismatch { tried, .. } | ParentNotFound { tried, .. }) = error.kind() else { return Vec::new() };
    let words = |outcome: &ParentRejection| match outcome {
        ParentRejection::Missing => "missing",
        ParentRejection::Outside => "outside",
        ParentRejection::InChain => "in chain",
        ParentRejection::OtherIdentity { .. } => "other identity",
        ParentRejection::NotAFile { .. } => "not a file",
        ParentRejection::Broken(_) => "broken",
        ParentRejection::Unusable(_) => "unusable",
        _ => "unknown",
    };
    let name = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    tried.iter().map(|candidate| (name(&candidate.path), words(&candidate.rejection))).collect()
}

/// Asserts that a disk reads like the model of its layers, child first.
#[track_caller]
fn assert_reads(disk: &Disk, layers: &[&Spec]) {
    let models: Vec<Model> = layers.iter().map(|spec| spec.build().model).collect();
    let models: Vec<&Model> = models.iter().collect();
    let size = usize::try_from(disk.size()).unwrap();
    let mut found = vec![0xee; size];
    assert_eq!(disk.read_at(&mut found, 0).unwrap(), size);
    assert!(found == Model::read(&models, 0, size).unwrap());
}
