//! `vhdx chain --tree`: how images depend on each other.

use std::io::{self, Write};

use vhdx_mmap::ops::inventory::{Forest, ForestImage, ForestLeaf, ForestParent, Listing};
use vhdx_mmap::report::ImageForest;

use crate::args::{ChainArgs, Common};
use crate::bulk;
use crate::exit::{Exit, Failure};
use crate::folder;
use crate::json;
use crate::size::{counted, short};
use crate::term::{self, escape};

pub(super) fn run(args: &ChainArgs, common: &Common) -> Result<Exit, Failure> {
    folder::reject_links(&args.images, common)?;
    let listing = bulk::all_threads(common)?.install(|| Listing::of(&args.images));
    if args.output.is_json() {
        json::print(&ImageForest::of(&listing))?;
    } else {
        let mut out = term::stdout();
        if args.dot { as_dot(&mut out, listing.forest()) } else { as_text(&mut out, listing.forest()) }?;
        out.flush()?;
    }
    folder::report_links(listing.links(), common);
    // The first failure decides the exit code.
    let mut exit = Exit::Done;
    for (path, error) in listing.failed() {
        let failed = Failure::of_one_input(path, error).report();
        if exit == Exit::Done {
            exit = failed;
        }
    }
    Ok(folder::report_empty(listing.empty(), exit))
}

/// Largest number of levels that are indented; deeper ones have their number.
fn most_levels() -> usize {
    term::width().map_or(16, |width| (width / 8).clamp(1, 16))
}

fn as_text(out: &mut impl Write, forest: &Forest) -> io::Result<()> {
    let (images, most_levels) = (forest.images(), most_levels());
    // For each level of the branch that is printed: whether it ends with this image.
    let mut ends: Vec<bool> = Vec::new();
    for root in forest.roots() {
        for (number, depth) in forest.tree(root) {
            let Some(image) = images.get(number) else { continue };
            let is_last = match image.parent {
                ForestParent::Found(parent) if depth > 0 => {
                    images.get(parent).is_none_or(|parent| parent.children.last() == Some(&number))
                }
                _ => true,
            };
            ends.truncate(depth.saturating_sub(1));
            if depth > 0 {
                ends.push(is_last);
            }
            let shown = ends.get(..ends.len().min(most_levels)).unwrap_or_default();
            for (level, ends) in shown.iter().enumerate() {
                let is_own = level.saturating_add(1) == shown.len();
                write!(
                    out,
                    "{}",
                    match (is_own, ends) {
                        (true, true) => "`-- ",
                        (true, false) => "|-- ",
                        (false, true) => "    ",
                        (false, false) => "|   ",
                    }
                )?;
            }
            if depth > most_levels {
                write!(out, "(level {depth}) ")?;
            }
            let title = term::TITLE;
            writeln!(out, "{title}{}{title:#}: {}", escape(&image.path.to_string_lossy()), facts(image, images))?;
        }
    }
    Ok(())
}

/// What is said of an image.
fn facts(image: &ForestImage, images: &[ForestImage]) -> String {
    let name =
        |number: usize| images.get(number).map_or_else(String::new, |image| escape(&image.path.to_string_lossy()));
    let mut facts = vec![format!("{}, {}", image.kind.as_str(), short(image.virtual_size))];
    let stored = || {
        let stored = image.stored.as_ref();
        stored.map_or_else(String::new, |stored| format!("{} {{{}}}", escape(&stored.name), stored.linkage))
    };
    match image.parent {
        ForestParent::None | ForestParent::Found(_) => {}
        ForestParent::Stale(named) => {
            facts.push(format!(
                "stale: {} was changed after this checkpoint was made, or is another image",
                name(named)
            ));
        }
        ForestParent::Missing => facts.push(format!("orphan: needs {}", stored())),
        ForestParent::Cycle(parent) => facts.push(format!("cycle: its parent {} depends on it", name(parent))),
        _ => {}
    }
    if !image.stale_children.is_empty() {
        let count = u64::try_from(image.stale_children.len()).unwrap_or(u64::MAX);
        facts.push(format!("parent of {} by name only", counted(count, "checkpoint")));
    }
    if let Some(other) = image.duplicate_of {
        facts.push(format!("same identity as {}", name(other)));
    }
    if image.is_dirty {
        facts.push("dirty log".to_owned());
    }
    match image.leaf {
        // A base without checkpoints is its own state.
        Some(ForestLeaf::Current) if image.stored.is_none() => {}
        Some(ForestLeaf::Current) => facts.push("current state".to_owned()),
        Some(ForestLeaf::Newest) => facts.push("newest of several branches".to_owned()),
        Some(ForestLeaf::Branch) => facts.push("branch".to_owned()),
        _ => {}
    }
    facts.join("; ")
}

fn as_dot(out: &mut impl Write, forest: &Forest) -> io::Result<()> {
    writeln!(out, "digraph images {{\n  rankdir=BT;\n  node [shape=box];")?;
    let label = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    for (number, image) in forest.images().iter().enumerate() {
        let name = label(&escape(&image.path.to_string_lossy()));
        let facts = label(&facts(image, forest.images()));
        let style = match (image.parent, image.leaf) {
            (ForestParent::Stale(_) | ForestParent::Missing | ForestParent::Cycle(_), _) => ", color=red",
            (_, Some(ForestLeaf::Current | ForestLeaf::Newest)) => ", style=bold",
            _ => "",
        };
        writeln!(out, "  n{number} [label=\"{name}\\n{facts}\"{style}];")?;
    }
    for (number, image) in forest.images().iter().enumerate() {
        match image.parent {
            ForestParent::Found(parent) => writeln!(out, "  n{number} -> n{parent};")?,
            ForestParent::Stale(named) => {
                writeln!(out, "  n{number} -> n{named} [style=dashed, color=red, label=\"stale\"];")?;
            }
            ForestParent::Cycle(parent) => {
                writeln!(out, "  n{number} -> n{parent} [style=dashed, color=red, label=\"cycle\"];")?;
            }
            _ => {}
        }
    }
    writeln!(out, "}}")
}
