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
mod size;
mod sums;
mod target;
mod term;

use clap::Parser;

use args::{Cli, Command};
use exit::Failure;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    term::set_color(cli.common.color);
    let done = match &cli.command {
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
    };
    done.unwrap_or_else(Failure::report).into()
}
