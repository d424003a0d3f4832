//! The files under which disks appear in a mount.
//!
//! | file | what it is |
//! |---|---|
//! | `disk.raw` | the whole disk |
//! | `part1.raw`, `part2.raw`, … | its partitions |
//! | `layers/0.raw`, `layers/1.raw`, … | the disk at each checkpoint: 0 is the opened image, 1 its parent |
//! | `info.json` | what is known of the image |
//!
//! Of several images, each has a directory with these files.

use std::sync::Arc;
use std::time::SystemTime;

use vhdx_mmap::{Disk, Result};

use crate::export::{Export, Kind, Portion};

/// An image of a tree.
#[derive(Clone, Debug)]
pub struct Image {
    /// Directory of its files; `None` for the root of the tree.
    pub directory: Option<String>,
    /// Its disk.
    pub disk: Arc<Disk>,
    /// Content of `info.json`; `None` for no such file.
    pub info: Option<Vec<u8>>,
    /// Whether the partition table is read. If it cannot be read, no tree can be made with partitions.
    pub has_partitions: bool,
}

/// Directories and files. The root is the first node; each directory comes before what it holds.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

/// A file or a directory of a tree.
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
    parent: usize,
    modified: SystemTime,
    content: Content,
}

/// What a node of a tree holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// Numbers of the nodes in a directory, in the order of their names.
    Directory(Vec<usize>),
    /// Bytes of a disk. The name of the export is the path in the tree.
    Disk(Export),
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
}

impl Node {
    /// Returns the name in its directory; that of the root is empty.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of the directory that it is in; that of the root is its own.
    #[must_use]
    pub fn parent(&self) -> usize {
        self.parent
    }

    /// Returns the time of the last change: that of the file of the image.
    #[must_use]
    pub fn modified(&self) -> SystemTime {
        self.modified
    }

    /// Returns what it holds.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Returns the size in bytes; 0 for a directory.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.content {
            Content::Directory(_) => 0,
            Content::Disk(export) => export.range().size(),
            Content::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        }
    }
}

impl Tree {
    /// Makes the tree of images.
    ///
    /// # Errors
    /// Fails if a partition table cannot be read.
    pub fn new(images: Vec<Image>) -> Result<Self> {
        let content = Content::Directory(Vec::new());
        let root = Node { name: String::new(), parent: 0, modified: SystemTime::UNIX_EPOCH, content };
        let mut tree = Self { nodes: vec![root] };
        for image in images {
            tree.add_image(image)?;
        }
        tree.sort();
        Ok(tree)
    }

    fn add_image(&mut self, image: Image) -> Result<()> {
        let modified = modified(&image.disk);
        let directory = match image.directory {
            Some(name) => self.add(0, name, modified, Content::Directory(Vec::new())),
            None => 0,
        };
        let mut portions = Portion::layers_of(&image.disk);
        if image.has_partitions {
            portions.extend(Portion::partitions_of(&image.disk)?);
        }
        let layers = self.add(directory, "layers".to_owned(), modified, Content::Directory(Vec::new()));
        for portion in portions {
            let (above, name) = match portion.kind {
                Kind::Disk => (directory, "disk.raw".to_owned()),
                Kind::Partition(number) => (directory, format!("part{number}.raw")),
                Kind::Layer(layer) => (layers, format!("{layer}.raw")),
            };
            let path = if above == 0 { name.clone() } else { format!("{}/{name}", self.path(above)) };
            let export = Export::new(&path, &portion.description, portion.range);
            self.add(above, name, modified, Content::Disk(export));
        }
        if let Some(info) = image.info {
            self.add(directory, "info.json".to_owned(), modified, Content::Bytes(info.into()));
        }
        Ok(())
    }

    fn add(&mut self, parent: usize, name: String, modified: SystemTime, content: Content) -> usize {
        let number = self.nodes.len();
        self.nodes.push(Node { name, parent, modified, content });
        if let Some(above) = self.nodes.get_mut(parent) {
            above.modified = above.modified.max(modified);
            if let Content::Directory(inside) = &mut above.content {
                inside.push(number);
            }
        }
        number
    }

    fn sort(&mut self) {
        let names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        for node in &mut self.nodes {
            if let Content::Directory(inside) = &mut node.content {
                inside.sort_by(|one, other| names.get(*one).cmp(&names.get(*other)));
            }
        }
    }

    /// Returns the nodes. The number of a node is its place in this slice.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the number and the node with a name in a directory.
    #[must_use]
    pub fn find(&self, directory: usize, name: &str) -> Option<(usize, &Node)> {
        let Content::Directory(inside) = &self.nodes.get(directory)?.content else { return None };
        inside.iter().find_map(|number| Some((*number, self.nodes.get(*number).filter(|node| node.name == name)?)))
    }

    /// Returns the path of a node, without a `/` in front.
    #[must_use]
    pub fn path(&self, number: usize) -> String {
        let mut names = Vec::new();
        let mut at = number;
        while let Some(node) = self.nodes.get(at).filter(|_| at != 0) {
            names.push(node.name.as_str());
            at = node.parent;
        }
        names.reverse();
        names.join("/")
    }
}

/// Returns the latest time of the files of a chain; 1970 for files without times.
fn modified(disk: &Disk) -> SystemTime {
    let times = disk.layers().iter().filter_map(|layer| layer.image().source().modified());
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}
