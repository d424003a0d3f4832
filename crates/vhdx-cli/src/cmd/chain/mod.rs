//! `vhdx chain`: lists the images of a chain.

mod tree;

use std::io::Write;

use vhdx_mmap::{Chain, ImageKind, Layer, LogState, Severity, report};

use crate::args::{ChainArgs, Common};
use crate::exit::{Exit, Failure};
use crate::findings::{hidden_notes, is_shown};
use crate::json;
use crate::open;
use crate::size::human;
use crate::term::{self, escape};

pub(crate) fn run(args: &ChainArgs, common: &Common) -> Result<Exit, Failure> {
    if args.tree {
        return tree::run(args, common);
    }
    let [image] = args.images.as_slice() else {
        let failure = Failure::usage(format!("several images (found {}, expected 1)", args.images.len()));
        return Err(failure.with_hint("pass --tree to show how several images depend on each other"));
    };
    let chain = open::chain(image, common)?;
    let result = match chain.broken() {
        Some(error) => Err(Failure::of_image(image, error)),
        None => Ok(Exit::Done),
    };
    if args.output.is_json() {
        json::print(&report::Chain::of(&chain))?;
        return Ok(open::fail_if_changed(chain.layers(), result).unwrap_or_else(Failure::report));
    }
    as_text(&chain, common)?;
    open::fail_if_changed(chain.layers(), result)
}

fn log_state(layer: &Layer) -> &'static str {
    match layer.image().log_state() {
        LogState::Clean => "clean",
        LogState::Replayed(_) => "replayed",
        LogState::Ignored => "ignored",
        _ => "unknown",
    }
}

fn file(layer: &Layer) -> String {
    layer.image().path().map_or_else(|| "-".to_owned(), |path| path.to_string_lossy().into_owned())
}

fn as_text(chain: &Chain, common: &Common) -> Result<(), Failure> {
    let title = term::TITLE;
    let mut out = term::stdout();
    for (depth, layer) in chain.layers().iter().enumerate() {
        let image = layer.image();
        writeln!(out, "{title}{depth}: {}{title:#}", escape(&file(layer)))?;
        let found = layer.link().map_or_else(
            || "the image itself".to_owned(),
            |link| format!("found by {}, linked by {}", link.found_by.as_str(), link.linkage),
        );
        writeln!(out, "   {found}")?;
        writeln!(
            out,
            "   {}, virtual size {}, log {}",
            image.kind().as_str(),
            human(image.virtual_disk_size()),
            log_state(layer)
        )?;
        let id = image.header().known_data_write_guid().map_or_else(|| "unknown".to_owned(), |id| id.to_string());
        writeln!(out, "   DataWriteGuid {id}")?;
        if image.kind() == ImageKind::Differencing
            && let Ok(Some(locator)) = image.parent_locator()
        {
            writeln!(out, "   needs {}, with DataWriteGuid {}", escape(locator.name()), locator.parent_linkage)?;
        }
        let mut notes = 0_u64;
        for finding in layer.findings() {
            notes = notes.saturating_add(u64::from(finding.severity == Severity::Note));
            if is_shown(finding.severity, common) {
                let (style, severity) = (term::WARNING, finding.severity.as_str());
                writeln!(out, "   {style}{severity}:{style:#} {}", escape(&finding.to_string()))?;
            }
        }
        if let Some(line) = hidden_notes(notes, common) {
            writeln!(out, "   {line}")?;
        }
    }
    if chain.broken().is_none() && chain.needs_parent() {
        writeln!(out, "   parent not searched (--parents none)")?;
    }
    out.flush()?;
    Ok(())
}
