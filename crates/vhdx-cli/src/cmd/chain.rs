//! `vhdx chain`: lists the images of a chain.

use std::io::Write;

use vhdx_mmap::{Chain, ImageKind, Layer, LogState, report};

use crate::args::{ChainArgs, Common};
use crate::exit::{Exit, Failure};
use crate::json;
use crate::open;
use crate::size::human;
use crate::term::{self, escape};

pub(crate) fn run(args: &ChainArgs, common: &Common) -> Result<Exit, Failure> {
    let chain = open::chain(&args.image, common)?;
    if args.output.is_json() {
        json::print(&report::Chain::of(&chain))?
    } else {
        as_text(&chain)?
    }
    let result = match chain.broken() {
        Some(error) => Err(Failure::of_image(&args.image, error)),
        None => Ok(Exit::Done),
    };
    open::fail_if_changed(chain.layers(), result)
}

fn log_state(layer: &Layer) -> &'static str {
    match layer.image().log_state() {
        LogState::Clean => "clean",
        LogState::Replayed(_) => "replayed",
        LogState::Ignored => "ignored",
    }
}

fn file(layer: &Layer) -> String {
    layer.image().path().map_or_else(|| "-".to_owned(), |path| path.to_string_lossy().into_owned())
}

fn as_text(chain: &Chain) -> Result<(), Failure> {
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
        writeln!(out, "   DataWriteGuid {}", image.header().data_write_guid)?;
        if image.kind() == ImageKind::Differencing
            && let Ok(Some(locator)) = image.parent_locator()
        {
            writeln!(out, "   needs {}, with DataWriteGuid {}", escape(locator.name()), locator.parent_linkage)?;
        }
        for warning in layer.warnings() {
            let (style, severity) = (term::WARNING, warning.severity.as_str());
            writeln!(out, "   {style}{severity}:{style:#} {}", escape(&warning.to_string()))?;
        }
    }
    if chain.broken().is_none() && chain.needs_parent() {
        writeln!(out, "   parent not searched (--parents none)")?;
    }
    out.flush()?;
    Ok(())
}
