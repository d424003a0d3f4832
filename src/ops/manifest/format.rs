//! The lines of a manifest.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk::Disk;
use crate::image::LogState;
use crate::num::to_u64;
use crate::ops::hash::{Algorithm, Digest, Running};
use crate::ops::share::Share;
use crate::scan::{ScanError, ScanOptions};

use super::blocks::BlockRun;

/// Version of the format. It is incremented when a key changes its meaning.
const SCHEMA: u32 = 1;

/// Type in the first line of a manifest.
const TYPE: &str = "vhdx-manifest";

/// Longest line of a manifest, in bytes.
pub(super) const LONGEST_LINE: u64 = 1 << 16;

/// Valid block sizes of an image (MS-VHDX 2.6.2.1): smaller ones would make a short manifest very expensive.
const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 28;

/// Identity of a disk in manifests.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Identity {
    /// Size of the disk, in bytes.
    pub virtual_size: u64,
    /// Block size of the opened image, in bytes.
    pub block_size: u64,
    /// VirtualDiskId of the image, if it has one.
    pub virtual_disk_id: Option<Uuid>,
    /// DataWriteGuid of the image, which changes with the content.
    pub data_write_guid: Uuid,
    /// Whether changes in the log of some layer were left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub log_ignored: bool,
}

impl Identity {
    pub(super) fn of(disk: &Disk) -> Self {
        Self {
            virtual_size: disk.size(),
            block_size: disk.block_size(),
            virtual_disk_id: disk.image().virtual_disk_id(),
            data_write_guid: disk.image().header().data_write_guid,
            log_ignored: disk
                .layers()
                .iter()
                .any(|layer| matches!(layer.image().log_state(), LogState::Ignored | LogState::Unknown)),
        }
    }
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) schema: u32,
    pub(super) r#type: String,
    #[serde(flatten)]
    pub(super) identity: Identity,
    pub(super) algorithms: Vec<Algorithm>,
    /// Only in a shard of a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) share: Option<Share>,
}

impl Header {
    pub(super) fn of(disk: &Disk, algorithms: &[Algorithm], share: Option<Share>) -> Self {
        Self {
            schema: SCHEMA,
            r#type: TYPE.to_owned(),
            identity: Identity::of(disk),
            algorithms: algorithms.to_vec(),
            share,
        }
    }

    /// Returns the covered range of the disk, in bytes.
    pub(super) fn range(&self) -> Range<u64> {
        match self.share {
            Some(share) => share.range(),
            None => 0..self.identity.virtual_size,
        }
    }

    /// Returns the roots to compute: none for a shard.
    fn roots(&self) -> Option<Roots> {
        self.share.is_none().then(|| Roots::new(&self.algorithms))
    }
}

/// A line for a block, or for several consecutive ones that are zero and in the same state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) block: u64,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(super) count: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) state: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) zero: bool,
    /// The digests of each of the blocks.
    #[serde(flatten)]
    pub(super) digests: BTreeMap<Algorithm, String>,
}

fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_one(count: &u64) -> bool {
    *count == 1
}

impl Line {
    /// Returns whether `next` continues this line with the same values.
    fn goes_on_in(&self, next: &Self) -> bool {
        let each = |line: &Self| line.length.checked_div(line.count);
        self.zero
            && next.zero
            && self.offset.checked_add(self.length) == Some(next.offset)
            && (&self.state, &self.digests, each(self)) == (&next.state, &next.digests, each(next))
    }

    /// Returns the digests, in the order of `algorithms`. Returns `None` unless all are present.
    pub(super) fn digests(&self, algorithms: &[Algorithm]) -> Option<Vec<Digest>> {
        let of = |algorithm: &Algorithm| Digest::from_hex(*algorithm, self.digests.get(algorithm)?);
        algorithms.iter().map(of).collect::<Option<Vec<Digest>>>().filter(|_| self.digests.len() == algorithms.len())
    }
}

/// Root of a manifest: a digest of the digests of all blocks, in order and as bytes. It is not the digest of the disk.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Root {
    /// Name: the algorithm, and what it covers.
    pub name: String,
    /// The digest in lower-case hexadecimal.
    pub digest: String,
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Footer {
    /// Number of blocks.
    pub(super) blocks: u64,
    /// Only in a whole manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) root: Vec<Root>,
    /// SHA-256 of all lines above: accidental changes are detected.
    pub(super) lines_sha256: String,
}

/// Roots in the making.
///
/// A line of a few bytes may stand for 2^26 blocks, and all algorithms except CRC-32 have to process the digest of each
/// of them. So this work waits as long as possible: until the manifest is complete and valid, or many lines were read.
pub(super) struct Roots {
    running: Vec<Running>,
    /// Digests of blocks, and the number of consecutive blocks with them, which have not been processed.
    waiting: Vec<(Vec<Digest>, u64)>,
}

/// Largest number of lines that may wait to be processed.
const MOST_WAITING: usize = 4096;

impl Roots {
    pub(super) fn new(algorithms: &[Algorithm]) -> Self {
        let running = algorithms.iter().map(|algorithm| Running::new(*algorithm)).collect();
        Self { running, waiting: Vec::new() }
    }

    /// Adds the digests of `count` equal blocks, in the order of the algorithms.
    pub(super) fn add(&mut self, digests: &[Digest], count: u64, options: &ScanOptions<'_>) -> Result<(), ScanError> {
        self.waiting.push((digests.to_vec(), count));
        if self.waiting.len() < MOST_WAITING { Ok(()) } else { self.catch_up(options) }
    }

    fn catch_up(&mut self, options: &ScanOptions<'_>) -> Result<(), ScanError> {
        for (digests, count) in self.waiting.drain(..) {
            for (running, digest) in self.running.iter_mut().zip(digests) {
                running.update_repeatedly(digest.bytes(), count, || options.advance(0))?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self, options: &ScanOptions<'_>) -> Result<Vec<Root>, ScanError> {
        self.catch_up(options)?;
        let root = |digest: Digest| {
            let name = format!("{}-of-block-digests", digest.algorithm());
            Root { name, digest: digest.to_string() }
        };
        Ok(self.running.into_iter().filter_map(Running::finish).map(root).collect())
    }
}

/// Writes a manifest, line by line. Adjacent runs of zero blocks are joined, wherever the work was divided.
pub(super) struct ManifestWriter<'w> {
    out: &'w mut dyn Write,
    options: ScanOptions<'w>,
    /// Digest of all lines that were written.
    lines: Running,
    pending: Option<Line>,
    /// Only for a whole manifest.
    roots: Option<Roots>,
    blocks: u64,
}

impl<'w> ManifestWriter<'w> {
    pub(super) fn new(out: &'w mut dyn Write, header: &Header, options: ScanOptions<'w>) -> Result<Self, ScanError> {
        let mut writer = Self {
            out,
            options,
            lines: Running::new(Algorithm::Sha256),
            pending: None,
            roots: header.roots(),
            blocks: 0,
        };
        writer.write(header)?;
        Ok(writer)
    }

    fn write(&mut self, line: &impl Serialize) -> Result<(), ScanError> {
        let mut text = serde_json::to_vec(line).map_err(|error| ScanError::manifest_io(error.into()))?;
        text.push(b'\n');
        self.lines.update(&text);
        self.out.write_all(&text).map_err(ScanError::manifest_io)
    }

    /// Writes a run of blocks with the digests of each of them, in the order of the header.
    pub(super) fn run(&mut self, run: &BlockRun, digests: &[Digest]) -> Result<(), ScanError> {
        let line = Line {
            block: run.block,
            count: run.count,
            offset: run.start,
            length: run.length,
            state: run.state.as_str().to_owned(),
            zero: run.is_zero,
            digests: digests.iter().map(|digest| (digest.algorithm(), digest.to_string())).collect(),
        };
        self.line(line, digests)
    }

    pub(super) fn line(&mut self, line: Line, digests: &[Digest]) -> Result<(), ScanError> {
        if let Some(roots) = &mut self.roots {
            roots.add(digests, line.count, &self.options)?;
        }
        self.blocks = self.blocks.saturating_add(line.count);
        match &mut self.pending {
            Some(before) if before.goes_on_in(&line) => {
                before.count = before.count.saturating_add(line.count);
                before.length = before.length.saturating_add(line.length);
                Ok(())
            }
            pending => pending.replace(line).map_or(Ok(()), |before| self.write(&before)),
        }
    }

    pub(super) fn finish(mut self) -> Result<Vec<Root>, ScanError> {
        if let Some(last) = self.pending.take() {
            self.write(&last)?;
        }
        let root = self.roots.take().map_or(Ok(Vec::new()), |roots| roots.finish(&self.options))?;
        let lines = std::mem::replace(&mut self.lines, Running::new(Algorithm::Sha256));
        let footer = Footer { blocks: self.blocks, root, lines_sha256: text_of(lines) };
        self.write(&footer)?;
        self.out.flush().map_err(ScanError::manifest_io)?;
        Ok(footer.root)
    }
}

/// Returns a digest in hexadecimal.
fn text_of(running: Running) -> String {
    running.finish().map(|digest| digest.to_string()).unwrap_or_default()
}

/// Reads a manifest line by line, and checks that it is complete and consistent.
pub(super) struct ManifestReader<R> {
    input: R,
    /// Digest of all lines that were read.
    lines: Running,
    /// Number of the document, from 0.
    document: usize,
    pub(super) header: Header,
    line: u64,
    /// Expected offset of the next block.
    position: u64,
    blocks: u64,
    /// Only for a whole manifest, unless they were checked before.
    roots: Option<Roots>,
    /// The SHA-256 of all lines except the last one: the expected or the computed one.
    lines_sha256: Option<String>,
    is_done: bool,
}

impl<R: BufRead> ManifestReader<R> {
    pub(super) fn new(mut input: R, document: usize) -> Result<Self, ScanError> {
        let bad = |what: &str| ScanError::bad_manifest(Some(1), document, what);
        let mut lines = Running::new(Algorithm::Sha256);
        let text = next_line(&mut input).map_err(|error| error.within(document, 1))?;
        let text = text.ok_or_else(|| bad("the manifest is empty"))?;
        lines.update(text.as_bytes());
        lines.update(b"\n");
        let header: Header =
            serde_json::from_str(&text).map_err(|error| bad(&format!("not a manifest of a disk: {error}")))?;
        if header.r#type != TYPE {
            return Err(bad("not a manifest of a disk"));
        }
        if header.schema != SCHEMA {
            return Err(bad("unknown version of the manifest"));
        }
        let identity = &header.identity;
        let range = header.range();
        let is_block = |place: u64| place == identity.virtual_size || place.checked_rem(identity.block_size) == Some(0);
        let mut algorithms = header.algorithms.clone();
        algorithms.sort_unstable();
        algorithms.dedup();
        if identity.virtual_size > crate::format::MAX_VIRTUAL_DISK_SIZE
            || !identity.block_size.is_power_of_two()
            || !BLOCK_SIZES.contains(&identity.block_size)
            || range.end > identity.virtual_size
            || !is_block(range.start)
            || !is_block(range.end)
            || algorithms.len() != header.algorithms.len()
            || algorithms.is_empty()
        {
            return Err(bad("the values contradict each other"));
        }
        let (position, roots) = (range.start, header.roots());
        let (blocks, lines_sha256, is_done) = (0, None, false);
        Ok(Self { input, lines, document, header, line: 1, position, blocks, roots, lines_sha256, is_done })
    }

    /// Reads a manifest again: `lines_sha256` is the value of the first time, when everything was checked.
    pub(super) fn again(input: R, document: usize, lines_sha256: Option<String>) -> Result<Self, ScanError> {
        Ok(Self { roots: None, lines_sha256, ..Self::new(input, document)? })
    }

    /// Returns the SHA-256 of all lines except the last one, once all are read.
    pub(super) fn into_lines_sha256(self) -> Option<String> {
        self.lines_sha256
    }

    fn bad(&self, what: &str) -> ScanError {
        ScanError::bad_manifest(Some(self.line), self.document, what)
    }

    /// Returns the next line and its digests in the order of the header. Returns `None` after the last one, if the
    /// manifest is valid.
    pub(super) fn next(&mut self, options: &ScanOptions<'_>) -> Result<Option<(Line, Vec<Digest>)>, ScanError> {
        if self.is_done {
            return Ok(None);
        }
        self.line = self.line.saturating_add(1);
        let text = next_line(&mut self.input).map_err(|error| error.within(self.document, self.line))?;
        let Some(text) = text else { return Err(self.bad("the manifest is truncated here")) };
        if self.position == self.header.range().end {
            return self.end(&text, options).map(|()| None);
        }
        self.lines.update(text.as_bytes());
        self.lines.update(b"\n");
        let line: Line = serde_json::from_str(&text).map_err(|_| self.bad("not a line about a block"))?;
        let identity = &self.header.identity;
        let (block_size, end) = (identity.block_size, self.header.range().end);
        let blocks_to = |place: u64| place.div_ceil(block_size);
        let line_end = line.offset.checked_add(line.length).filter(|line_end| *line_end <= end && line.length > 0);
        let Some(line_end) = line_end.filter(|_| line.offset == self.position) else {
            return Err(self.bad("the blocks do not follow each other"));
        };
        if line.offset.checked_rem(block_size) != Some(0)
            || line.block != blocks_to(line.offset)
            || line.count != blocks_to(line_end).saturating_sub(line.block)
            || (line.count > 1 && (!line.zero || !line_end.is_multiple_of(block_size)))
            || (line_end != identity.virtual_size && !line_end.is_multiple_of(block_size))
        {
            return Err(self.bad("the values contradict each other"));
        }
        let digests = line.digests(&self.header.algorithms);
        let digests = digests.ok_or_else(|| self.bad("the digests differ from those that the first line lists"))?;
        if let Some(roots) = &mut self.roots {
            roots.add(&digests, line.count, options)?;
        }
        self.blocks = self.blocks.saturating_add(line.count);
        self.position = line_end;
        Ok(Some((line, digests)))
    }

    fn end(&mut self, text: &str, options: &ScanOptions<'_>) -> Result<(), ScanError> {
        let footer: Footer = serde_json::from_str(text).map_err(|_| self.bad("not the last line of a manifest"))?;
        if footer.blocks != self.blocks {
            return Err(self.bad("the number of blocks differs from that in the last line"));
        }
        let changed = "the manifest was changed: the digest of its lines differs from that in the last line";
        let lines = text_of(std::mem::replace(&mut self.lines, Running::new(Algorithm::Sha256)));
        if footer.lines_sha256 != lines || (self.header.share.is_some() && !footer.root.is_empty()) {
            return Err(self.bad(changed));
        }
        if self.lines_sha256.as_ref().is_some_and(|before| *before != lines) {
            return Err(self.bad("the manifest was changed while it was read"));
        }
        self.lines_sha256 = Some(lines);
        self.line = self.line.saturating_add(1);
        if next_line(&mut self.input).map_err(|error| error.within(self.document, self.line))?.is_some() {
            return Err(self.bad("there is data after the last line"));
        }
        // At the end, since it may take long.
        if let Some(roots) = self.roots.take()
            && footer.root != roots.finish(options)?
        {
            self.line = self.line.saturating_sub(1);
            return Err(self.bad(changed));
        }
        self.is_done = true;
        Ok(())
    }
}

/// Returns the next line without its end. Returns `None` after the last one.
fn next_line(input: &mut impl BufRead) -> Result<Option<String>, ScanError> {
    let mut bytes = Vec::new();
    let read = input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes);
    let read = read.map_err(ScanError::manifest_io)?;
    let bad = |what: &str| ScanError::bad_manifest(None, 0, what);
    if read == 0 {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    } else if to_u64(read) == LONGEST_LINE {
        return Err(bad("a line is too long for a manifest"));
    } else {
        return Err(bad("the manifest is truncated here"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| bad("not UTF-8"))
}
