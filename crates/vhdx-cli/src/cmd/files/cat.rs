//! `vhdx cat`: content of files in a disk.

use std::io::{self, Write};

use vhdx_files::{Error, Node};

use crate::args::{CatArgs, Common};
use crate::exit::{Exit, Failure};
use crate::files::Opened;
use crate::target::reject_terminal;

pub(crate) fn run(args: &CatArgs, common: &Common) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for argument in &args.paths {
        let done = Opened::new(argument, args.disk, common).and_then(|opened| write(&opened));
        match done {
            Ok(()) => {}
            Err(failure @ Failure::Message { .. }) if args.paths.len() > 1 => exit = failure.report(),
            Err(Failure::ClosedPipe { .. }) => return Err(Failure::ClosedPipe { bulk: true }),
            Err(failure) => return Err(failure),
        }
    }
    Ok(exit)
}

/// Finds a file, and the stream that is named behind it.
fn find(opened: &Opened) -> Result<(Node, Option<String>), Failure> {
    let failed = |error| opened.failure(&opened.path, error);
    match vhdx_files::lookup(&*opened.volume, &opened.path) {
        Err(Error::NotFound(path)) => {
            // A name with a colon is a name first.
            let (file, stream) = split_stream(&opened.path).ok_or_else(|| failed(Error::NotFound(path)))?;
            let node = vhdx_files::lookup(&*opened.volume, file).map_err(failed)?;
            Ok((node, Some(String::from_utf8_lossy(stream).into_owned())))
        }
        found => Ok((found.map_err(failed)?, None)),
    }
}

fn split_stream(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = path.iter().rposition(|byte| *byte == b':')?;
    Some((path.get(..colon)?, path.get(colon.saturating_add(1)..)?))
}

fn write(opened: &Opened) -> Result<(), Failure> {
    let (node, stream) = find(opened)?;
    let failed = |error| opened.failure(&opened.path, error);
    let content = opened.volume.open(node, stream.as_deref()).map_err(failed)?;
    let mut out = io::stdout().lock();
    let mut buffer = vec![0; 1 << 18];
    let (mut offset, mut is_text) = (0_u64, true);
    loop {
        let read = content.read_at(&mut buffer, offset).map_err(failed)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        if std::mem::take(&mut is_text) && bytes.contains(&0) {
            reject_terminal(false, "write it to a file: `vhdx cat … > FILE`")?;
        }
        out.write_all(bytes)?;
        offset = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
    Ok(out.flush()?)
}
