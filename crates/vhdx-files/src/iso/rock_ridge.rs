//! Rock Ridge: names, modes, owners, times and links of Unix, in what the records of directories have behind their
//! names (SUSP).

use crate::error::Result;
use crate::fields::Fields;
use crate::time::Time;

use super::record::{long_date, short_date};
use super::{Iso, damaged};

/// Most areas that the entries of a record lie in, as Linux has it.
const MOST_AREAS: u32 = 32;

/// Longest name and longest target of a link, in bytes.
const LONGEST: usize = 4096;

/// What the entries of a record say.
#[derive(Debug, Default)]
pub(super) struct RockRidge {
    /// Whether there is any entry of Rock Ridge, or one that names it.
    pub(super) is_used: bool,
    pub(super) name: Option<Vec<u8>>,
    /// Mode, number of names, user and group.
    pub(super) unix: Option<[u32; 4]>,
    pub(super) device: Option<(u32, u32)>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) created: Option<Time>,
    pub(super) modified: Option<Time>,
    pub(super) accessed: Option<Time>,
    pub(super) changed: Option<Time>,
    /// The block where the directory is that was moved away from here.
    pub(super) moved_to: Option<u32>,
    /// Whether it is shown where it was moved away from, not here.
    pub(super) is_moved: bool,
    /// Length of the content after it is unpacked, if it is packed (zisofs).
    pub(super) unpacked: Option<u32>,
    /// Whether the content is sparse, in a form of its own.
    pub(super) is_sparse: bool,
    /// Number of bytes before the entries of every record, which the root directory says.
    pub(super) skip: Option<u8>,
    /// Whether the last piece of the name, of the link, or of a part of the link's path goes on.
    name_goes_on: bool,
    part_goes_on: bool,
}

impl RockRidge {
    /// Reads the entries of a record.
    pub(super) fn read(iso: &Iso, area: &[u8]) -> Result<Self> {
        let mut found = Self::default();
        let (mut area, mut areas) = (area.to_vec(), 0_u32);
        loop {
            let mut next = None;
            let mut rest = area.as_slice();
            // What is shorter than an entry fills the area.
            while let [a, b, length, _, ..] = rest {
                let length = usize::from(*length);
                if length < 4 {
                    break;
                }
                let Some((entry, behind)) = rest.split_at_checked(length) else {
                    return Err(damaged("an entry of Rock Ridge is cut off"));
                };
                match &[*a, *b] {
                    b"CE" => {
                        let fields = Fields(entry);
                        next = Some((fields.le32(4), fields.le32(12), fields.le32(20)));
                    }
                    b"ST" => break,
                    signature => found.entry(*signature, entry)?,
                }
                rest = behind;
            }
            let Some((block, offset, length)) = next else { return Ok(found) };
            areas = areas.saturating_add(1);
            if areas > MOST_AREAS || length > iso.block_size() {
                return Err(damaged("entries of Rock Ridge go on without end"));
            }
            let at = iso.offset(block).saturating_add(u64::from(offset));
            area = iso.read(at, u64::from(length))?;
        }
    }

    fn entry(&mut self, signature: [u8; 2], entry: &[u8]) -> Result<()> {
        let fields = Fields(entry);
        // Fields are in both byte orders; the first one counts.
        let words = |at: [usize; 4]| at.map(|at| fields.le32(at));
        match &signature {
            b"SP" if fields.bytes(4, 2) == [0xbe, 0xef] => self.skip = Some(fields.byte(6)),
            b"ER" => {
                let name = fields.bytes(8, fields.byte(4).into());
                self.is_used |= matches!(name, b"RRIP_1991A" | b"IEEE_P1282" | b"IEEE_1282");
            }
            b"RR" => self.is_used = true,
            b"PX" => {
                self.is_used = true;
                self.unix = Some(words([4, 12, 20, 28]));
            }
            b"PN" => {
                let [high, low] = [4, 12].map(|at| fields.le32(at));
                // Linux takes both from the lower half where the upper one is empty.
                let is_both = high == 0 && low > 0xff;
                self.device = Some(if is_both { (low >> 8, low & 0xff) } else { (high, low) });
            }
            b"NM" => self.name(entry)?,
            b"SL" => self.link(entry)?,
            b"TF" => self.times(entry),
            b"CL" => self.moved_to = Some(fields.le32(4)),
            b"RE" => self.is_moved = true,
            b"ZF" => self.unpacked = Some(fields.le32(8)),
            b"SF" => self.is_sparse = true,
            _ => {}
        }
        Ok(())
    }

    fn name(&mut self, entry: &[u8]) -> Result<()> {
        const GOES_ON: u8 = 1;
        /// The directory itself, or the one above: the record says so, too.
        const IS_DOT: u8 = 6;

        self.is_used = true;
        let [_, _, _, _, flags, part @ ..] = entry else { return Err(damaged("a name is cut off")) };
        if flags & IS_DOT != 0 {
            return Ok(());
        }
        if self.name.is_some() && !self.name_goes_on {
            return Err(damaged("a file has two names"));
        }
        self.name_goes_on = flags & GOES_ON != 0;
        let name = self.name.get_or_insert_default();
        name.extend_from_slice(part);
        if name.len() > LONGEST { Err(damaged("a name is too long")) } else { Ok(()) }
    }

    fn link(&mut self, entry: &[u8]) -> Result<()> {
        const GOES_ON: u8 = 1;

        let mut rest = entry.get(5..).ok_or_else(|| damaged("a link is cut off"))?;
        let target = self.target.get_or_insert_default();
        while let [flags, length, more @ ..] = rest {
            let Some((part, behind)) = more.split_at_checked(usize::from(*length)) else {
                return Err(damaged("a part of a link is cut off"));
            };
            // A part that stands for the root is a separator itself.
            if !target.is_empty() && !self.part_goes_on && !target.ends_with(b"/") {
                target.push(b'/');
            }
            match flags & !GOES_ON {
                0 => target.extend_from_slice(part),
                2 => target.push(b'.'),
                4 => target.extend_from_slice(b".."),
                8 => target.push(b'/'),
                _ => return Err(damaged("a part of a link is of no known kind")),
            }
            self.part_goes_on = flags & GOES_ON != 0;
            if target.len() > LONGEST {
                return Err(damaged("a link is too long"));
            }
            rest = behind;
        }
        Ok(())
    }

    fn times(&mut self, entry: &[u8]) {
        let flags = Fields(entry).byte(4);
        let is_long = flags & 0x80 != 0;
        let mut rest = entry.get(5..).unwrap_or_default();
        let mut next = |bit: u8, to: &mut Option<Time>| {
            if flags & bit == 0 {
                return;
            }
            let length = if is_long { 17 } else { 7 };
            let (date, behind) = rest.split_at_checked(length).unwrap_or_default();
            rest = behind;
            let fields = Fields(date);
            *to = if is_long { long_date(fields.array(0)) } else { short_date(fields.array(0)) };
        };
        next(1, &mut self.created);
        next(2, &mut self.modified);
        next(4, &mut self.accessed);
        next(8, &mut self.changed);
    }
}
