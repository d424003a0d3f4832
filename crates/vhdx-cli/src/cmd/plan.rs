//! `vhdx plan`: divides the work on a disk.

use std::io::Write;

use vhdx_mmap::ops::plan::{Plan, PlanOptions};
use vhdx_mmap::report;

use crate::args::{Common, PlanArgs};
use crate::exit::{Exit, Failure};
use crate::json;
use crate::open;

/// Data in each split, in bytes.
const SPLIT_SIZE: u64 = 4 << 30;

pub(crate) fn run(args: &PlanArgs, common: &Common) -> Result<Exit, Failure> {
    let disk = open::disk(&args.image, common)?;
    let options = match (args.splits, args.split_size) {
        (Some(0), _) | (_, Some(0)) => return Err(Failure::usage("--split-size: expected at least 1")),
        (Some(count), _) => PlanOptions::splits(count),
        (None, size) => PlanOptions::split_size(size.unwrap_or(SPLIT_SIZE)),
    };
    let options = options.overlap(args.overlap);
    let options = if args.no_times { options.without_times() } else { options };
    let plan = Plan::new(&disk, &options).map_err(|error| Failure::of_image(&args.image, &error));
    let plan = open::fail_if_changed(disk.layers(), plan)?;
    if args.lines {
        let mut out = json::stdout();
        for split in plan.splits() {
            json::write_document(&mut out, &report::Split::from(split))?;
            writeln!(out)?;
        }
        out.flush()?;
    } else {
        json::print(&report::Plan::from(plan))?;
    }
    Ok(Exit::Done)
}
