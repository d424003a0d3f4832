//! `vhdx completions` and `vhdx man`: what the definition of the command line says, for shells and for `man`.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::exit::{Exit, Failure};

pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    // In memory first: the generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vhdx", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script)?;
    out.flush()?;
    Ok(Exit::Done)
}

pub(crate) fn man(args: &ManArgs) -> Result<Exit, Failure> {
    clap_mangen::generate_to(Cli::command(), &args.folder).map_err(|error| {
        let text = format!("{}: cannot write the manual pages: {error}", args.folder.display());
        Failure::new(Exit::CannotCreate, text).with_hint("create the folder first, and name one that you may write to")
    })?;
    Ok(Exit::Done)
}
