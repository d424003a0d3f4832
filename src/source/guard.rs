//! SIGBUS inside of a mapping: the page is taken as lost, and the process goes on.
//!
//! The system sends this signal where a page of a mapped file is touched and can't be had: the file has become shorter,
//! or its medium failed. The handler writes down which page it was, puts a page of zeros in its place, and returns; whoever
//! touched it goes on with zeros. That these are never taken for content is up to whoever looked at them: *behind* the look,
//! and before anything is made of it, the record is asked. Since the record is written before the zeros are there, and
//! nothing is ever taken out of it, one question is enough, and no page can be missed.
//!
//! What the handler uses is atomic numbers in memory that never goes away, and three system calls that POSIX or its system
//! allow there: no lock is taken, nothing is allocated, and any number of threads may be in it.
#![expect(unsafe_code, reason = "signals and mappings")]

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::mm::{MapFlags, ProtFlags};

use crate::num::to_u64;

/// How many faults there were in all mappings, ever: what is asked first, and is zero in most lives of a process.
static FAULTS: AtomicUsize = AtomicUsize::new(0);

/// Whether any page of any mapping was ever lost. The bytes that were looked at before this call were looked at before.
#[inline]
pub(crate) fn any_lost() -> bool {
    // What was read before stays before: a fault in it has been counted by now.
    fence(Ordering::Acquire);
    FAULTS.load(Ordering::Relaxed) != 0
}

/// The same for whoever has not looked at anything yet: what is lost from now on, the question behind the look finds out.
#[inline]
pub(super) fn any_known_lost() -> bool {
    FAULTS.load(Ordering::Relaxed) != 0
}

/// How many ranges of lost pages are kept apart for one mapping. A file that becomes shorter under a scan makes one for each
/// thread.
const RANGES: usize = 32;

/// How many mappings one piece of the table holds.
const SLOTS: usize = 64;

/// All mappings.
static TABLE: Table = Table::new();

/// A piece of the table of mappings. More are added as they are needed, and stay: the handler may look at them at any time.
struct Table {
    slots: [Slot; SLOTS],
    more: OnceLock<Box<Table>>,
}

/// A mapping in the table, or room for one.
struct Slot {
    /// Whether some mapping has this slot, be it that it is not yet or no longer to be found.
    is_taken: AtomicBool,
    /// Odd while a mapping is to be found here.
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    lost: Lost,
}

/// What was lost of a mapping.
struct Lost {
    faults: AtomicUsize,
    /// See [`Pages`].
    ranges: [AtomicU64; RANGES],
    /// The first page for which there was no room there, and the one behind the last: all between them counts as lost.
    others: (AtomicU64, AtomicU64),
}

/// Some pages in a row, none of them where it is none, in one number: what one atomic operation can change as a whole.
#[derive(Clone, Copy)]
struct Pages {
    first: u64,
    count: u64,
}

/// Bits of the count. The other 40 number the pages of 4 PiB, more than a file can have that is mapped.
const COUNT_BITS: u32 = 24;
const MOST_PAGES: u64 = (1 << COUNT_BITS) - 1;

impl Pages {
    fn of(number: u64) -> Self {
        Self { first: number >> COUNT_BITS, count: number & MOST_PAGES }
    }

    fn number(self) -> u64 {
        self.first << COUNT_BITS | self.count
    }

    fn end(self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// These pages and another one, if that lies among them or beside them and there is room for it.
    fn with(self, page: u64) -> Option<Self> {
        let longer = self.count.saturating_add(1);
        if self.count == 0 {
            Some(Self { first: page, count: 1 })
        } else if (self.first..self.end()).contains(&page) {
            Some(self)
        } else if longer > MOST_PAGES {
            None
        } else if page == self.end() {
            Some(Self { count: longer, ..self })
        } else if page.checked_add(1) == Some(self.first) {
            Some(Self { first: page, count: longer })
        } else {
            None
        }
    }
}

impl Lost {
    const fn none() -> Self {
        Self {
            faults: AtomicUsize::new(0),
            ranges: [const { AtomicU64::new(0) }; RANGES],
            others: (AtomicU64::new(u64::MAX), AtomicU64::new(0)),
        }
    }

    fn clear(&self) {
        self.faults.store(0, Ordering::Relaxed);
        self.ranges.iter().for_each(|range| range.store(0, Ordering::Relaxed));
        self.others.0.store(u64::MAX, Ordering::Relaxed);
        self.others.1.store(0, Ordering::Relaxed);
    }

    /// Writes down that a page is lost.
    fn add(&self, page: u64) {
        let widen = |number| Pages::of(number).with(page).map(Pages::number);
        let is_known =
            self.ranges.iter().any(|range| range.fetch_update(Ordering::Relaxed, Ordering::Relaxed, widen).is_ok());
        if !is_known {
            self.others.0.fetch_min(page, Ordering::Relaxed);
            self.others.1.fetch_max(page.saturating_add(1), Ordering::Relaxed);
        }
        // Whoever sees this sees what is above.
        self.faults.fetch_add(1, Ordering::Release);
    }

    /// The first place of a mapping, from `start` on and before `end`, that was lost.
    fn first_in(&self, start: u64, end: u64) -> Option<u64> {
        if self.faults.load(Ordering::Acquire) == 0 || start >= end {
            return None;
        }
        let page = to_u64(page_size());
        let kept = self.ranges.iter().map(|range| Pages::of(range.load(Ordering::Relaxed)));
        let others = (self.others.0.load(Ordering::Relaxed), self.others.1.load(Ordering::Relaxed));
        let lost = kept.map(|pages| (pages.first, pages.end())).chain([others]);
        let first_of = |(first, behind): (u64, u64)| {
            let at = first.saturating_mul(page).max(start);
            Some(at).filter(|at| first < behind && *at < end && *at < behind.saturating_mul(page))
        };
        lost.filter_map(first_of).min()
    }
}

impl Table {
    const fn new() -> Self {
        Self { slots: [const { Slot::free() }; SLOTS], more: OnceLock::new() }
    }

    /// The pieces of the table, as far as there are any.
    fn pieces(&'static self) -> impl Iterator<Item = &'static Self> {
        std::iter::successors(Some(self), |piece| piece.more.get().map(Box::as_ref))
    }

    /// A slot that nobody has, for the caller alone.
    fn take(&'static self) -> &'static Slot {
        let mut piece = self;
        loop {
            let mut free = piece.slots.iter().filter(|slot| !slot.is_taken.swap(true, Ordering::Acquire));
            match free.next() {
                Some(slot) => return slot,
                None => piece = piece.more.get_or_init(|| Box::new(Self::new())),
            }
        }
    }

    /// The mapping that has the byte at `address`.
    fn find(&'static self, address: usize) -> Option<(&'static Slot, usize)> {
        let mut slots = self.pieces().flat_map(|piece| &piece.slots);
        slots.find_map(|slot| Some((slot, slot.place_of(address)?)))
    }
}

impl Slot {
    const fn free() -> Self {
        Self {
            is_taken: AtomicBool::new(false),
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            lost: Lost::none(),
        }
    }

    /// Where in the mapping an address lies, if it does.
    fn place_of(&self, address: usize) -> Option<usize> {
        let version = self.version.load(Ordering::Acquire);
        if version & 1 == 0 {
            return None;
        }
        let (start, end) = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        // Read while the slot got another mapping, the two may be halves of different ones. The mapping that is looked for
        // can't be among those that come and go meanwhile, since somebody is touching it.
        fence(Ordering::Acquire);
        let is_whole = self.version.load(Ordering::Relaxed) == version;
        address.checked_sub(start).filter(|_| is_whole && address < end)
    }
}

/// The place of a mapping in the table, for as long as the mapping lives.
pub(super) struct Guarded(&'static Slot);

impl Guarded {
    /// Puts a mapping into the table.
    pub(super) fn new(mapping: &[u8]) -> Self {
        let slot = TABLE.take();
        slot.lost.clear();
        // Whoever sees one of these sees that the version has changed since.
        fence(Ordering::Release);
        let addresses = mapping.as_ptr_range();
        slot.start.store(addresses.start.addr(), Ordering::Relaxed);
        slot.end.store(addresses.end.addr(), Ordering::Relaxed);
        slot.version.fetch_add(1, Ordering::Release);
        Self(slot)
    }

    /// The first place of the mapping, from `start` on and before `end`, that was lost since it was made.
    pub(super) fn first_lost(&self, start: u64, end: u64) -> Option<u64> {
        self.0.lost.first_in(start, end)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.version.fetch_add(1, Ordering::Relaxed);
        self.0.is_taken.store(false, Ordering::Release);
    }
}

/// Who had the signal before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Makes the process survive it when a mapped image can't be read: instead of being ended by SIGBUS, the operation that
/// touched the lost page fails with [`ErrorKind::Lost`](crate::ErrorKind::Lost), which names the file offset. It holds for all
/// threads, for all sources of [`Source::map`](crate::Source::map), those that are there already and those to come, and until the
/// end of the process. To call it again does nothing.
///
/// **What it does to the process:** it installs a handler for SIGBUS, once. Signals that have nothing to do with these mappings
/// are passed on to the handler that was there before, or end the process as they would have. Whoever installs a handler
/// later has to do the same, or this one is out of work. The alternate signal stack of a thread is used if it has one.
///
/// **What it does not do:** where bytes have been lent ([`Disk::segments`](crate::Disk::segments), [`Disk::slice`](crate::Disk::slice)), a
/// lost page reads as zeros until somebody asks. The crate asks on its own behind everything that it looks at itself, and an
/// iterator or a [`Reader`](crate::Reader) does so when it is asked for what comes next. Whoever stops before that, or keeps what was
/// lent, asks with [`Disk::check_lost`](crate::Disk::check_lost). To give lent bytes to a system call, such as writing them to a file,
/// fails with `EFAULT` where a page is lost.
///
/// # Errors
/// If the system refuses the handler.
pub fn guard_mappings() -> io::Result<()> {
    static IS_INSTALLED: Mutex<bool> = Mutex::new(false);

    let mut is_installed = IS_INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *is_installed {
        return Ok(());
    }
    // The handler asks for it, too, and shall find it there.
    page_size();
    let before = sigaction(None)?;
    // Known before the handler is there: it may be called at once.
    let before = BEFORE.get_or_init(|| before);
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
    let mut action = *before;
    #[expect(clippy::as_conversions, reason = "how libc wants a function")]
    {
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
    }
    // What the handler before wanted to be blocked stays blocked, since it is called from this one. Not the signal itself: that
    // handler may touch a mapping, too.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER | (before.sa_flags & libc::SA_RESTART);
    sigaction(Some(&action))?;
    *is_installed = true;
    Ok(())
}

/// Sets what SIGBUS does, if that is given, and returns what it did before.
fn sigaction(action: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut before = nothing();
    let action = action.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are of such structures, or null, which is allowed for the first. A handler that is installed is
    // that of this module, whose signature is what SA_SIGINFO asks for, or none.
    let result = unsafe { libc::sigaction(libc::SIGBUS, action, &raw mut before) };
    if result == 0 { Ok(before) } else { Err(io::Error::last_os_error()) }
}

/// What a signal does by default.
fn nothing() -> libc::sigaction {
    // SAFETY: numbers, a set of bits, and a function that may be none: all of them may be zero, which is SIG_DFL, no flags,
    // and an empty set.
    unsafe { std::mem::zeroed() }
}

/// Length of a page, in bytes.
fn page_size() -> usize {
    static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);

    match PAGE_SIZE.load(Ordering::Relaxed) {
        0 => {
            let size = rustix::param::page_size();
            PAGE_SIZE.store(size, Ordering::Relaxed);
            size
        }
        size => size,
    }
}

/// The handler.
extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO, the system passes a pointer that is valid for the call, or whoever calls handlers by hand a
    // null pointer at worst.
    let told = unsafe { info.as_ref() };
    if !told.is_some_and(is_of_a_mapping) {
        pass_on(signal, info, context);
    }
}

/// Whether the thread that got the signal has touched a page, and not been sent a signal by somebody.
fn is_fault(info: &libc::siginfo_t) -> bool {
    // BUS_ADRALN, BUS_ADRERR, BUS_OBJERR, and of Linux BUS_MCEERR_AR: a page whose memory is broken, and was touched.
    matches!(info.si_code, 1..=4)
}

/// Takes a page of a mapping as lost, if it is one, and puts zeros in its place.
fn is_of_a_mapping(info: &libc::siginfo_t) -> bool {
    if !is_fault(info) {
        return false;
    }
    // SAFETY: this signal, when it comes of a touched page, carries the address.
    let address = unsafe { info.si_addr() };
    let Some((slot, place)) = TABLE.find(address.addr()) else { return false };
    let size = page_size();
    let page = address.map_addr(|address| address & !size.wrapping_sub(1));
    // First of all, so that nobody sees zeros and no record.
    slot.lost.add(to_u64(place.checked_div(size).unwrap_or(0)));
    FAULTS.fetch_add(1, Ordering::Release);
    // SAFETY: the page lies in a mapping that its owner has put into the table, and takes out of it before it is unmapped.
    // The thread is touching it by a borrow, for which the owner is still there; so what is replaced is a page of that mapping
    // and never of another. Nobody writes to it, and no bytes of it that anyone has can change but to zeros, in the one case
    // in which the promise of `Source::map` is broken: the page has gone. By the call itself, nothing else is changed; on Linux it
    // is made without libc, so `errno` stays what it was.
    let replaced =
        unsafe { rustix::mm::mmap_anonymous(page, size, ProtFlags::READ, MapFlags::PRIVATE | MapFlags::FIXED) };
    replaced.is_ok()
}

/// Does what would have been done without this handler.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    type Simple = extern "C" fn(c_int);
    type Informed = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

    let before = BEFORE.get().copied().unwrap_or_else(nothing);
    // SAFETY: as in `on_bus_error`.
    let is_fault = unsafe { info.as_ref() }.is_some_and(is_fault);
    match before.sa_sigaction {
        // A touched page is not to be ignored: the system ends the process all the same.
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            drop(sigaction(Some(&nothing())));
            // The page is touched again when this returns; a signal that somebody sent has to be sent again.
            if !is_fault {
                // SAFETY: it sends a signal, and may be called in handlers.
                unsafe { libc::raise(signal) };
            }
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: neither SIG_DFL nor SIG_IGN, so it is the address of a function; and whoever installed it with
            // SA_SIGINFO has promised that it has this signature.
            let handler = unsafe { std::mem::transmute::<libc::sighandler_t, Informed>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: the same without SA_SIGINFO.
            let handler = unsafe { std::mem::transmute::<libc::sighandler_t, Simple>(handler) };
            handler(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lost, RANGES, page_size, to_u64};

    #[test]
    fn where_there_is_no_room_for_more_ranges_what_lies_between_the_others_is_lost() {
        let (lost, kept) = (Lost::none(), to_u64(RANGES));
        // Every other page.
        (0..kept + 3).for_each(|number| lost.add(2 * number));
        let page = to_u64(page_size());
        let first = |pages: std::ops::Range<u64>| lost.first_in(pages.start * page, pages.end * page);
        assert_eq!(first(0..1), Some(0));
        assert_eq!(first(1..2), None);
        assert_eq!(first(2 * kept - 1..2 * kept), None);
        assert_eq!(first(2 * kept - 1..2 * kept + 9), Some(2 * kept * page));
        assert_eq!(first(2 * kept + 1..2 * kept + 2), Some((2 * kept + 1) * page));
        assert_eq!(first(2 * kept + 5..2 * kept + 9), None);
        lost.clear();
        assert_eq!(first(0..2 * kept + 9), None);
    }
}
