//! `vhdx`: reads Hyper-V's VHDX and AVHDX disk images.
//!
//! The command uses the public interface of the library only, so programs can do everything that it does.

mod args;
mod bulk;
mod cmd;
mod container;
mod exit;
mod files;
mod findings;
mod folder;
mod hint;
mod json;
mod many;
mod mistaken;
#[cfg(unix)]
mod names;
mod new_file;
mod open;
mod progress;
mod salvage;
#[cfg(unix)]
mod serving;
mod share;
mod shell;
mod siblings;
mod size;
mod sums;
mod target;
mod term;
mod time;
mod tips;
mod usage;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, FromArgMatches};
use vhdx_files::report::FileRow;
use vhdx_mmap::report;

use args::{Cli, ColorChoice, Command};
use exit::{Exit, Failure};
use files::FilePath;

fn main() -> std::process::ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let is_check = args.get(1).is_some_and(|command| command == "check");
    match parse_and_run(args).unwrap_or_else(Failure::report) {
        // 2 is the answer of `check` for corruption.
        Exit::Usage if is_check => Exit::NotChecked,
        exit => exit,
    }
    .into()
}

fn parse_and_run(args: Vec<OsString>) -> Result<Exit, Failure> {
    let args = args::without_image_format(args)?;
    let color = ColorChoice::of_args(&args);
    color.set();
    let matches = Cli::command().color(color.of_help()).try_get_matches_from(args);
    let mut cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error),
    };
    std::sync::LazyLock::force(&time::OF_PROGRAM);
    keep_caught_panics_quiet();
    term::set_quiet(cli.common.quiet);
    hint::set_command(cli.command.name(), cli.command.is_salvage());
    progress::listen_for_status().map_err(|error| Failure::new(Exit::Io, format!("signal handler: {error}")))?;
    guard_mappings()?;
    cli.command.load_shares()?;
    run(&cli)
}

/// Lets panics pass in silence that the readers of file systems make errors of.
fn keep_caught_panics_quiet() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !vhdx_files::is_panic_caught() {
            print(panic);
        }
    }));
}

/// Prints help, the version, or what is wrong with the command line.
fn wrong_usage(error: &clap::Error) -> Result<Exit, Failure> {
    if let Some(failure) = tips::for_usage(error) {
        return Err(failure);
    }
    match error.print() {
        // The exit code does not depend on who reads the message.
        _ if error.use_stderr() => Ok(Exit::Usage),
        printed => Ok(printed.map(|()| Exit::Done)?),
    }
}

/// Turns SIGBUS, which the system sends if a mapped file is truncated or its drive fails, into an error with a message.
fn guard_mappings() -> Result<(), Failure> {
    #[cfg(unix)]
    vhdx_mmap::guard_mappings().map_err(|error| Failure::new(Exit::Io, format!("signal handler: {error}")))?;
    Ok(())
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    match &cli.command {
        Command::Info(args) => cmd::info::run(args, &cli.common),
        Command::Map(args) => {
            let result = cmd::map::run(args, &cli.common);
            json::or_failed::<report::Map<'_>>(args.output.place(), &args.image, result)
        }
        Command::Extract(args) => {
            let place = if args.out == Path::new("-") { args.output.beside_disk() } else { args.output.place() };
            json::or_failed::<report::Extract>(place, &args.image, cmd::extract::run(args, &cli.common))
        }
        Command::Hash(args) => cmd::hash::run(args, &cli.common),
        Command::Verify(args) => {
            let place = args.check.as_ref().and(args.output.place());
            let list = args.check.as_deref().unwrap_or(Path::new("-"));
            json::or_failed::<report::VerifySum>(place, list, cmd::verify::run(args, &cli.common))
                .map_err(Failure::with_fatal_pipe)
        }
        Command::Compare(args) => {
            json::or_failed::<report::Compare>(args.output.place(), &args.first, cmd::compare::run(args, &cli.common))
                .map_err(Failure::with_fatal_pipe)
        }
        Command::Diff(args) if args.files => {
            let result = cmd::diff::run(args, &cli.common);
            json::line_or_failed::<FileRow>(args.output.is_json(), &args.image, result)
                .map_err(Failure::with_fatal_pipe)
        }
        Command::Diff(args) => {
            json::or_failed::<report::Diff>(args.output.place(), &args.image, cmd::diff::run(args, &cli.common))
                .map_err(Failure::with_fatal_pipe)
        }
        Command::List(args) => cmd::list::run(args, &cli.common),
        Command::Plan(args) => {
            json::or_failed::<report::Plan>(Some(json::Place::Output), &args.image, cmd::plan::run(args, &cli.common))
        }
        Command::Merge(args) => {
            let shard = args.shards.first().map_or(Path::new("-"), PathBuf::as_path);
            json::or_failed::<report::Merge>(args.output.place(), shard, cmd::merge::run(args))
        }
        Command::Read(args) => cmd::read::run(args, &cli.common),
        Command::Log(args) => {
            json::or_failed::<report::Log>(args.output.place(), &args.image, cmd::log::run(args, &cli.common))
        }
        Command::Chain(args) => {
            let image = args.images.first().map_or(Path::new("-"), PathBuf::as_path);
            let place = args.output.place().filter(|_| !args.tree);
            json::or_failed::<report::Chain>(place, image, cmd::chain::run(args, &cli.common))
        }
        Command::Check(args) => cmd::check::run(args, &cli.common).map_err(Failure::with_fatal_pipe),
        Command::Ls(args) => cmd::files::ls::run(args, &cli.common),
        Command::Tree(args) => cmd::files::tree::run(args, &cli.common),
        Command::Cat(args) => cmd::files::cat::run(args, &cli.common),
        #[cfg(unix)]
        Command::Cp(args) => cmd::files::cp::run(args, &cli.common),
        #[cfg(not(unix))]
        Command::Cp(_) => Err(Failure::new(Exit::Unsupported, "cp works on Unix systems only; `vhdx tar` works here")),
        Command::Df(args) => cmd::files::df::run(args, &cli.common),
        Command::Find(args) => {
            let result = cmd::files::find::run(args, &cli.common);
            json::line_or_failed::<FileRow>(args.output.is_json(), &FilePath::parse(&args.path).image, result)
        }
        Command::Tar(args) => cmd::files::tar::run(args, &cli.common).map_err(Failure::with_fatal_pipe),
        Command::Timeline(args) => cmd::files::timeline::run(args, &cli.common),
        Command::Locate(args) => {
            let result = cmd::files::locate::run(args, &cli.common);
            json::line_or_failed::<FileRow>(args.output.is_json(), &args.image, result)
        }
        #[cfg(unix)]
        Command::Serve(args) => cmd::serve::run(args, &cli.common),
        #[cfg(not(unix))]
        Command::Serve(_) => Err(Failure::new(Exit::Unsupported, "serve works on Unix systems only")),
        #[cfg(target_os = "linux")]
        Command::Mount(args) => cmd::mount::run(args, &cli.common),
        #[cfg(not(target_os = "linux"))]
        Command::Mount(_) => Err(Failure::new(Exit::Unsupported, "mount works on Linux only")),
        #[cfg(target_os = "linux")]
        Command::Umount(args) => cmd::mount::umount(args),
        #[cfg(not(target_os = "linux"))]
        Command::Umount(_) => Err(Failure::new(Exit::Unsupported, "umount works on Linux only")),
        Command::Completions(args) => cmd::shell::completions(args),
        Command::Man(args) => cmd::shell::man(args),
    }
}
