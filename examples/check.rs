//! Reports everything that is wrong with an image: `cargo run --example check --features ops -- disk.vhdx`.

#![expect(clippy::print_stdout, reason = "results are printed")]

use std::error::Error;
use std::process::ExitCode;

use vhdx_mmap::ops::{self, CheckOptions};
use vhdx_mmap::{OpenOptions, Parents, Severity, Source};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: check IMAGE")?;
    let options = CheckOptions::new(OpenOptions::new().parents(Parents::Beside));
    let report = ops::check(Source::open(path)?, &options)?;
    for finding in &report.findings {
        println!("{}: {finding}", finding.severity);
        println!("    rule {}: {}", finding.rule.code(), finding.rule.text());
    }
    println!("{} of {} blocks are allocated", report.allocated_blocks, report.blocks);
    let is_good = report.worst().is_none_or(|worst| worst < Severity::Corruption);
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
