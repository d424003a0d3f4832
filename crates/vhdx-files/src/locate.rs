//! Which files lie in ranges of a volume.

use std::ops::Range;

use crate::error::Result;
use crate::volume::{FileKind, Volume};
use crate::walk::{Found, Unread, Walk};

/// A file with content in a range.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Owner {
    /// The file.
    pub found: Found,
    /// Name of the stream, if it is not the main content.
    pub stream: Option<String>,
    /// Parts of the file that lie in the ranges: offset in the file, offset in the volume, length, all in bytes.
    pub parts: Vec<(u64, u64, u64)>,
}

/// Finds the files whose content lies in `ranges` of the volume, and calls `visit` for each. Files of which it is not
/// known where they lie (compressed ones, small ones in the structures), and what cannot be read, go to `unread`.
///
/// # Errors
/// Fails with the errors of `visit`.
pub fn locate<E>(
    volume: &dyn Volume,
    ranges: &[Range<u64>],
    unread: &mut dyn FnMut(Unread),
    visit: &mut dyn FnMut(Owner) -> Result<(), E>,
) -> Result<(), E> {
    let mut ranges: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
    ranges.sort_by_key(|range| range.start);
    for found in Walk::new(volume, volume.root()) {
        let found = match found {
            Ok(found) if found.metadata.kind == FileKind::File => found,
            Ok(_) => continue,
            Err(error) => {
                unread(error);
                continue;
            }
        };
        let mut streams = vec![None];
        match volume.streams(found.node) {
            Ok(more) => streams.extend(more.into_iter().map(|stream| Some(stream.name))),
            Err(error) => unread(Unread { path: found.path.clone(), error }),
        }
        for stream in streams {
            let content = match volume.open(found.node, stream.as_deref()) {
                Ok(content) => content,
                Err(error) => {
                    unread(Unread { path: found.path.clone(), error });
                    continue;
                }
            };
            let runs = content.runs().map(|(_, runs)| runs).unwrap_or_default();
            let parts: Vec<_> = runs.iter().flat_map(|run| shared(run, &ranges)).collect();
            if !parts.is_empty() {
                visit(Owner { found: found.clone(), stream, parts })?;
            }
        }
    }
    Ok(())
}

/// Parts of a run that lie in sorted ranges.
fn shared<'r>(
    run: &'r crate::content::Run,
    ranges: &'r [Range<u64>],
) -> impl Iterator<Item = (u64, u64, u64)> + use<'r> {
    let at = run.at.unwrap_or(0)..run.at.map_or(0, |at| at.saturating_add(run.length));
    let begin = ranges.partition_point(|range| range.start < at.start).saturating_sub(1);
    let near = ranges.get(begin..).unwrap_or_default().iter();
    let end = at.end;
    near.take_while(move |range| range.start < end).filter_map(move |range| {
        let (start, stop) = (range.start.max(at.start), range.end.min(at.end));
        let length = stop.checked_sub(start).filter(|length| *length > 0)?;
        Some((run.start.saturating_add(start.saturating_sub(at.start)), start, length))
    })
}

#[cfg(test)]
mod tests {
    use super::shared;
    use crate::content::Run;

    #[test]
    fn parts_of_a_run_in_ranges() {
        let run = Run { start: 1000, length: 100, at: Some(5000) };
        let parts = |ranges: &[std::ops::Range<u64>]| shared(&run, ranges).collect::<Vec<_>>();
        assert_eq!(parts(&[0..5000, 5100..9000]), []);
        assert_eq!(parts(std::slice::from_ref(&(0..5001))), [(1000, 5000, 1)]);
        assert_eq!(
            parts(&[0..10, 4000..5010, 5020..5030, 5090..6000]),
            [(1000, 5000, 10), (1020, 5020, 10), (1090, 5090, 10)]
        );
        assert_eq!(shared(&Run { at: None, ..run }, std::slice::from_ref(&(0..u64::MAX))).count(), 0);
    }
}
