//! `vhdx tar`: a tree of files in a disk as a tar stream.

use std::io::{self, BufWriter, Write};

use vhdx_files::Error;

use crate::args::{Common, TarArgs};
use crate::exit::{Exit, Failure};
use crate::files::{Opened, last_name};
use crate::progress::Work;
use crate::target::reject_terminal;

use super::ls::below;

pub(crate) fn run(args: &TarArgs, common: &Common) -> Result<Exit, Failure> {
    reject_terminal(false, "write it to a file: `vhdx tar … > FILE.tar`")?;
    let opened = Opened::new(&args.path, args.disk, common)?;
    let node = opened.node()?;
    let name = match opened.path.iter().all(|byte| matches!(byte, b'/' | b'.')) {
        true => Vec::new(),
        false => last_name(&opened.path).into_encoded_bytes(),
    };
    let work = Work::new(0, "tar", &opened.from.image, common);
    let mut exit = Exit::Done;
    let mut out = BufWriter::with_capacity(1 << 18, io::stdout().lock());
    let written = vhdx_files::write_tar(&*opened.volume, node, &name, &mut out, &work, &mut |unread| {
        opened.warn(&below(&opened.path, &unread.path), &unread.error);
        exit = Exit::Corrupt;
    });
    let flushed = out.flush();
    work.finish();
    match written {
        Err(Error::Host(_, error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Err(Failure::ClosedPipe { bulk: true });
        }
        written => written.map_err(|error| opened.failure(&opened.path, error))?,
    };
    flushed?;
    Ok(exit)
}
