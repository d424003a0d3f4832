//! `vhdx`: reads Hyper-V's VHDX and AVHDX disk images.
//!
//! The command stands on the public interface of the library, and on nothing else: what it can do, programs can.

mod args;
mod bulk;
mod cmd;
mod exit;
mod json;
mod open;
mod progress;
mod salvage;
mod size;
mod sums;
mod target;
mod term;

use clap::Parser;

use args::{Cli, Command};
use exit::{Exit, Failure};

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    term::set_color(cli.common.color);
    guard_mappings().and_then(|()| run(&cli)).unwrap_or_else(Failure::report).into()
}

/// A file that becomes shorter, or whose medium fails, is an error to tell, and no reason to be ended by a signal.
fn guard_mappings() -> Result<(), Failure> {
    #[cfg(unix)]
    vhdx_mmap::guard_mappings().map_err(|error| Failure::new(Exit::Io, format!("signals: {error}")))?;
    Ok(())
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    match &cli.command {
        Command::Info(args) => cmd::info::run(args, &cli.common),
        Command::Map(args) => cmd::map::run(args, &cli.common),
        Command::Extract(args) => cmd::extract::run(args, &cli.common),
        Command::Hash(args) => cmd::hash::run(args, &cli.common),
        Command::Verify(args) => cmd::verify::run(args, &cli.common).map_err(Failure::of_an_answer),
        Command::Compare(args) => cmd::compare::run(args, &cli.common).map_err(Failure::of_an_answer),
        Command::Diff(args) => cmd::diff::run(args, &cli.common).map_err(Failure::of_an_answer),
        Command::Merge(args) => cmd::merge::run(args),
        Command::Read(args) => cmd::read::run(args, &cli.common),
        Command::Log(args) => cmd::log::run(args, &cli.common),
        Command::Chain(args) => cmd::chain::run(args, &cli.common),
        Command::Check(args) => cmd::check::run(args, &cli.common).map_err(Failure::of_an_answer),
    }
}
