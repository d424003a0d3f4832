//! SIGBUS in a mapping: the page counts as lost, and the process continues.
//!
//! The system sends this signal when a page of a mapped file is accessed and cannot be read: the file was truncated, or
//! its medium failed. The handler records which pages are lost, replaces them with zero pages, and returns; the thread
//! that accessed the page continues with zeros. Zeros are never taken for content, because every reader checks the
//! record *after* it has read bytes and before it uses them. The record is written before the zeros appear, and entries
//! are never removed: so one check is enough, and no lost page is missed.
//!
//! The handler uses atomic numbers in memory that is never freed, and system calls that are allowed in a handler: it
//! takes no lock and allocates nothing, and any number of threads may run it at once.
//!
//! # How many pages a fault replaces
//! A mapping with a range of zero pages in it is three mappings of the process, and their number is limited
//! (`vm.max_map_count`). So a mapping is never cut into more pieces than its record has ranges:
//! - *Past the end of the file*, all pages up to the end of the mapping are replaced at once.
//! - *Before it*, where a medium fails, the page alone; when the record has no room for another range, the aligned span
//!   of 64 KiB around it, of 1 MiB, and so on, and in the end the whole mapping.
//! - *When the system refuses* because the process has too many mappings, a longer span is tried, which needs fewer.
//!   For a process that is past its limit, one mapping is kept in reserve.
#![expect(unsafe_code, reason = "signals and mappings")]

mod nesting;
mod record;

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::FileType;
use rustix::mm::{MapFlags, ProtFlags};

use self::nesting::Nesting;
use self::record::{LostPages, PageRange};
use crate::num::to_u64;

/// Number of losses in all mappings since the process began: checked first, and 0 in most processes.
static FAULTS: AtomicUsize = AtomicUsize::new(0);

/// Returns whether any page of any mapping is lost, of all that were read before this call.
#[inline]
pub(crate) fn any_lost() -> bool {
    // Keeps earlier reads before this: a fault in them has been counted by now.
    fence(Ordering::Acquire);
    FAULTS.load(Ordering::Relaxed) != 0
}

/// Returns whether any page of any mapping is known to be lost, for callers that have not read bytes yet: later losses
/// are found by the check after the read.
#[inline]
pub(super) fn any_known_lost() -> bool {
    FAULTS.load(Ordering::Relaxed) != 0
}

/// Returns the number of losses that are known: in pages that were read before this call, or by a look at the length of
/// a file. It only grows.
#[inline]
pub(crate) fn losses_known() -> usize {
    fence(Ordering::Acquire);
    FAULTS.load(Ordering::Relaxed)
}

/// Counts a loss that was found without a signal. The caller has recorded it.
pub(super) fn count_loss() {
    FAULTS.fetch_add(1, Ordering::Release);
}

/// Number of mappings in one piece of the table.
const SLOTS: usize = 16;

/// All mappings.
static TABLE: Table = Table::new();

/// A piece of the table of mappings. Pieces are added when needed, and never removed: the handler may read them at any
/// time.
struct Table {
    slots: [Slot; SLOTS],
    more: OnceLock<Box<Table>>,
}

/// A mapping in the table, or space for one.
struct Slot {
    /// Whether a mapping owns this slot, also before it can be found here and after that.
    is_taken: AtomicBool,
    /// Odd while a mapping can be found here.
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    /// Descriptor of the mapped file.
    file: AtomicI32,
    lost: LostPages,
}

/// Numbers of pages that are replaced at once, aligned to their size: 4 KiB, 64 KiB, 1 MiB, up to 64 GiB in pages of 4
/// KiB.
const SPANS: [u64; 7] = [1, 1 << 4, 1 << 8, 1 << 12, 1 << 16, 1 << 20, 1 << 24];

impl Table {
    const fn new() -> Self {
        Self { slots: [const { Slot::free() }; SLOTS], more: OnceLock::new() }
    }

    /// Returns the pieces of the table.
    fn pieces(&'static self) -> impl Iterator<Item = &'static Self> {
        std::iter::successors(Some(self), |piece| piece.more.get().map(Box::as_ref))
    }

    /// Returns a free slot, which the caller owns from now on.
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

    /// Returns the mapping that contains `address`, and the offset of the address in it.
    fn find(&'static self, address: usize) -> Option<(&'static Slot, usize)> {
        let mut slots = self.pieces().flat_map(|piece| &piece.slots);
        slots.find_map(|slot| Some((slot, slot.offset_of(address)?)))
    }
}

impl Slot {
    const fn free() -> Self {
        Self {
            is_taken: AtomicBool::new(false),
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            file: AtomicI32::new(-1),
            lost: LostPages::none(),
        }
    }

    /// Returns the offset of an address in the mapping, if the mapping contains it.
    fn offset_of(&self, address: usize) -> Option<usize> {
        let version = self.version.load(Ordering::Acquire);
        if version & 1 == 0 {
            return None;
        }
        let (start, end) = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        // If the slot got another mapping meanwhile, the two values may belong to different ones. The mapping that is
        // searched cannot come or go meanwhile, since a thread is accessing it.
        fence(Ordering::Acquire);
        let is_whole = self.version.load(Ordering::Relaxed) == version;
        address.checked_sub(start).filter(|_| is_whole && address < end)
    }

    /// Returns the number of pages of the mapping.
    fn page_count(&self) -> u64 {
        let length = self.end.load(Ordering::Relaxed).saturating_sub(self.start.load(Ordering::Relaxed));
        to_u64(length.div_ceil(page_size()))
    }

    /// Returns the number of pages of the file now, with the partial one at its end. Returns `None` if it is not a
    /// regular file, or if the system does not report it.
    fn file_page_count(&self) -> Option<u64> {
        // SAFETY: the owner of the mapping takes it out of the table before it closes the file, and a thread is
        // accessing the mapping now, so the owner still exists.
        let file = unsafe { BorrowedFd::borrow_raw(self.file.load(Ordering::Relaxed)) };
        let status = rustix::fs::fstat(file).ok()?;
        let length = u64::try_from(status.st_size).ok()?;
        FileType::from_raw_mode(status.st_mode).is_file().then_some(length.div_ceil(to_u64(page_size())))
    }

    /// Records an unreadable page as lost, with as many others as necessary, and replaces all of them with zeros.
    /// Returns false if the system refuses.
    fn lose(&self, page: u64) -> bool {
        let is_done = match self.file_page_count().filter(|count| *count <= page) {
            Some(count) => self.lose_rest(count),
            None => SPANS.iter().any(|span| self.lose_span(page, *span)),
        };
        is_done || self.lose_rest(0) || (release_reserve() && self.lose_rest(0))
    }

    /// Loses the aligned span of `length` pages, a power of two, around a page. Returns false if the record has no
    /// space for it, or the system refuses a mapping.
    fn lose_span(&self, page: u64, length: u64) -> bool {
        let first = page & !length.wrapping_sub(1);
        let count = length.min(self.page_count().saturating_sub(first));
        let Some(span) = PageRange::new(first, count).filter(|span| self.lost.add(*span)) else { return false };
        FAULTS.fetch_add(1, Ordering::Release);
        self.put_zeros(span.first, span.count)
    }

    /// Loses all pages from `first` to the end of the mapping. Returns false if the system refuses a mapping.
    fn lose_rest(&self, first: u64) -> bool {
        self.lost.add_rest(first);
        FAULTS.fetch_add(1, Ordering::Release);
        self.put_zeros(first, self.page_count().saturating_sub(first))
    }

    /// Replaces pages that are recorded as lost with zeros.
    fn put_zeros(&self, first: u64, count: u64) -> bool {
        let in_bytes = |pages: u64| usize::try_from(pages).ok()?.checked_mul(page_size());
        let place = || in_bytes(first)?.checked_add(self.start.load(Ordering::Relaxed));
        let (Some(start), Some(length)) = (place(), in_bytes(count)) else { return false };
        let start = std::ptr::without_provenance_mut::<c_void>(start);
        // SAFETY: all these pages are in a mapping that its owner has put into the table, and takes out of it before it
        // is unmapped. The thread is accessing it by a borrow, so the owner still exists, and no other page is
        // replaced. The pages are read-only before and after, and stay mapped all the time.
        //
        // Borrowed bytes may change to zeros, which a shared reference does not allow for. This happens only after the
        // promise of `Source::map` was broken: the file was truncated, or its medium does not return the content any
        // more. From then on, the bytes of *any* page of such a file may turn into zeros, with or without this call:
        // the system can drop a page that was read, and fail to read it again. What remains guaranteed is that nothing
        // else happens: each byte is one that the file had or a zero, and the loss is recorded before the first zero
        // can be seen. Every caller who checks after reading (`check_lost`) gets the error.
        //
        // The call itself changes nothing else; on Linux it is made without libc, so `errno` is not changed.
        //
        // By the call itself, nothing else is changed; on Linux it is made without libc, so `errno` stays what it was.
        let replaced =
            unsafe { rustix::mm::mmap_anonymous(start, length, ProtFlags::READ, MapFlags::PRIVATE | MapFlags::FIXED) };
        replaced.is_ok()
    }
}

/// Entry of a mapping in the table, for as long as the mapping exists.
pub(super) struct Guarded(&'static Slot);

impl Guarded {
    /// Puts a mapping of a file into the table. The file must stay open until this is dropped: if another file had the
    /// same descriptor, more pages would count as lost than are lost (never fewer).
    ///
    /// If [`guard_mappings`] was called before, and its handler was displaced since, the handler is installed again.
    ///
    /// # Errors
    /// Fails if the system refuses the handler.
    pub(super) fn new(mapping: &[u8], file: &File) -> io::Result<Self> {
        if FIRST.get().is_some() {
            guard_mappings()?;
        }
        let slot = TABLE.take();
        slot.lost.clear();
        // A thread that sees one of these values sees that the version has changed.
        fence(Ordering::Release);
        let addresses = mapping.as_ptr_range();
        slot.start.store(addresses.start.addr(), Ordering::Relaxed);
        slot.end.store(addresses.end.addr(), Ordering::Relaxed);
        slot.file.store(file.as_raw_fd(), Ordering::Relaxed);
        slot.version.fetch_add(1, Ordering::Release);
        Ok(Self(slot))
    }

    /// Returns the first offset in the mapping, from `start` on and before `end`, that was lost since it was made.
    pub(super) fn first_lost(&self, start: u64, end: u64) -> Option<u64> {
        self.0.lost.first_in(start, end, to_u64(page_size()))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.version.fetch_add(1, Ordering::Relaxed);
        self.0.is_taken.store(false, Ordering::Release);
    }
}

/// Action for a signal before the handler was installed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Displaced {
    handler: libc::sighandler_t,
    flags: c_int,
}

/// The action that the handler displaced when it was installed for the first time.
static FIRST: OnceLock<&'static Displaced> = OnceLock::new();

/// The action that the handler displaced last; null until there is one. The target is never freed.
static NEWEST: AtomicPtr<Displaced> = AtomicPtr::new(std::ptr::null_mut());

/// All displaced actions, each once. Locked while the handler is installed.
static ALL_DISPLACED: Mutex<Vec<&'static Displaced>> = Mutex::new(Vec::new());

/// The threads that are running displaced handlers.
static NESTING: Nesting = Nesting::new();

/// Lets the process survive when a mapped image cannot be read.
///
/// Without this call, access to an unreadable page (the file was truncated, or its medium failed) ends the process with
/// SIGBUS. With it, the operation that accessed the page fails with [`ErrorKind::Lost`](crate::ErrorKind::Lost), which
/// contains the file offset. It applies to all threads and all sources of [`Source::map`](crate::Source::map), existing
/// and future ones.
///
/// # Effects on the process
/// The call installs a handler for SIGBUS. Signals that do not come from these mappings go to the handler that was
/// installed before, or end the process as they would have. The alternate signal stack of a thread is used if it has
/// one.
///
/// A handler that another library installs later displaces this one, unless it passes signals on. [`guard_is_active`]
/// reports that. Another call of `guard_mappings` installs the handler again, on top of that one; so does each later
/// call of [`Source::map`](crate::Source::map). Foreign signals then go to the handler that was displaced last; if that
/// passes them on to this one, they go to the handler that was installed before the first call of `guard_mappings`.
/// Displaced handlers must therefore stay in memory. While this handler is not active, a lost page ends the process, or
/// the other handler decides.
///
/// # Lost pages
/// - If the file was truncated: all whole pages past its end, at once. The partial page at the end causes no signal;
///   the crate compares the length of the file instead ([`Source::check_lost`](crate::Source::check_lost)).
/// - If its medium failed: the accessed page. The record of a mapping has space for 128 ranges of lost pages. After
///   that, or when the process has as many mappings as the system allows, other pages that could have been read are
///   lost with it: those in the same aligned 64 KiB, 1 MiB, 16 MiB, 256 MiB, 4 GiB or 64 GiB of the file, or the whole
///   file. All of them are reported as lost. So more may be reported than is lost, never less.
///
/// # What callers have to do
/// In borrowed bytes ([`Disk::segments`](crate::Disk::segments), [`Disk::slice`](crate::Disk::slice)), a lost page
/// reads as zeros. The bytes of a failing file may turn into zeros while they are borrowed, also those that were read
/// before. So if you use borrowed bytes, call [`Disk::check_lost`](crate::Disk::check_lost) *after* you have read them
/// and before you rely on them. The crate does that for everything that it reads itself; an iterator and a
/// [`Reader`](crate::Reader) check the bytes that they returned when they are asked for the next item. A system call
/// that gets borrowed bytes, such as a write to a file, fails with `EFAULT` if a page cannot be read.
///
/// # Errors
/// Fails if the system refuses the handler, or a mapping of one page that is kept in reserve.
pub fn guard_mappings() -> io::Result<()> {
    let mut all_displaced = ALL_DISPLACED.lock().unwrap_or_else(PoisonError::into_inner);
    reserve_mapping()?;
    // The handler needs it, too, and must not be the first to ask.
    page_size();
    let current = sigaction(None)?;
    if is_ours(&current) {
        return Ok(());
    }
    // Before the handler is installed: it may be called at once.
    remember(&mut all_displaced, &current);
    let mut action = current;
    action.sa_sigaction = our_handler();
    // Signals that the displaced handler blocks stay blocked, since it is called from this one. Not SIGBUS itself: that
    // handler may access a mapping, too.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER | (current.sa_flags & libc::SA_RESTART);
    let displaced = sigaction(Some(&action))?;
    // Another thread may have installed a handler between the two calls.
    if !is_ours(&displaced) {
        remember(&mut all_displaced, &displaced);
    }
    Ok(())
}

/// Returns whether the handler that [`guard_mappings`] installs is the current one of the process for SIGBUS.
///
/// Returns false before `guard_mappings` was called, and after another library has installed a handler of its own.
/// (That one may pass signals on to this one, which cannot be detected.)
#[must_use]
pub fn guard_is_active() -> bool {
    sigaction(None).is_ok_and(|current| is_ours(&current))
}

/// Returns the handler, as the system takes it.
fn our_handler() -> libc::sighandler_t {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
    #[expect(clippy::as_conversions, reason = "how libc wants a function")]
    let address = handler as *const () as libc::sighandler_t;
    address
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == our_handler()
}

/// Makes an action the newest displaced one.
fn remember(all: &mut Vec<&'static Displaced>, action: &libc::sigaction) {
    let displaced = Displaced { handler: action.sa_sigaction, flags: action.sa_flags };
    let known = all.iter().copied().find(|known| **known == displaced);
    let displaced = known.unwrap_or_else(|| {
        let displaced: &'static Displaced = Box::leak(Box::new(displaced));
        all.push(displaced);
        displaced
    });
    NEWEST.store(std::ptr::from_ref(displaced).cast_mut(), Ordering::Release);
    FIRST.get_or_init(|| displaced);
}

/// Sets the action for SIGBUS, if one is given, and returns the previous one.
fn sigaction(action: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut before = default_action();
    let action = action.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are of such structures, or null, which is allowed for the first. A handler that is
    // installed is that of this module, whose signature is the one that SA_SIGINFO requires, or none.
    let result = unsafe { libc::sigaction(libc::SIGBUS, action, &raw mut before) };
    if result == 0 { Ok(before) } else { Err(io::Error::last_os_error()) }
}

/// Returns the default action.
fn default_action() -> libc::sigaction {
    // SAFETY: numbers, a set of bits, and an optional function: all of them may be zero, which is SIG_DFL, no flags,
    // and an empty set.
    unsafe { std::mem::zeroed() }
}

/// A mapping of one page that is released when the process exceeds the limit of its mappings; null if not mapped.
static RESERVE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Makes the reserved mapping, if there is none. Called under the lock of [`ALL_DISPLACED`].
fn reserve_mapping() -> io::Result<()> {
    if RESERVE.load(Ordering::Relaxed).is_null() {
        // Shared, so it is never merged with a neighbour: releasing it frees exactly one mapping.
        let (length, flags) = (page_size(), MapFlags::SHARED);
        // SAFETY: the system chooses the address, and no access is allowed there.
        let page = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::empty(), flags) }?;
        RESERVE.store(page, Ordering::Release);
    }
    Ok(())
}

/// Releases the reserved mapping. Returns false if there was none.
fn release_reserve() -> bool {
    let page = RESERVE.swap(std::ptr::null_mut(), Ordering::Acquire);
    if page.is_null() {
        return false;
    }
    // SAFETY: the mapping has this length, no other thread has its address any more, and nothing refers to it.
    unsafe { rustix::mm::munmap(page, page_size()) }.is_ok()
}

/// Returns the length of a page, in bytes.
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
    // SAFETY: with SA_SIGINFO, the system passes a pointer that is valid for the call; another handler that passes a
    // signal on passes the same, or a null pointer at worst.
    let fault = unsafe { info.as_ref() };
    if !fault.is_some_and(is_lost_page) {
        pass_on(signal, info, context);
    }
}

/// Returns whether the signal was caused by an access of the thread, and was not sent by a process.
fn is_fault(info: &libc::siginfo_t) -> bool {
    // BUS_ADRALN, BUS_ADRERR, BUS_OBJERR, and on Linux BUS_MCEERR_AR: a page with broken memory was accessed.
    matches!(info.si_code, 1..=4)
}

/// Records the page as lost and replaces it with zeros, if it belongs to a mapping.
fn is_lost_page(info: &libc::siginfo_t) -> bool {
    if !is_fault(info) {
        return false;
    }
    // SAFETY: this signal, if caused by an access, contains the address.
    let address = unsafe { info.si_addr() };
    let Some((slot, offset)) = TABLE.find(address.addr()) else { return false };
    slot.lose(to_u64(offset.checked_div(page_size()).unwrap_or(0)))
}

/// Does what would have been done without this handler.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    type Simple = extern "C" fn(c_int);
    type Informed = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

    let frame = 0_u8;
    let call = NESTING.enter(thread_id(), std::ptr::from_ref(std::hint::black_box(&frame)).addr());
    let displaced = displaced_at(call.depth());
    // SAFETY: as in `on_bus_error`.
    let is_fault = unsafe { info.as_ref() }.is_some_and(is_fault);
    match displaced.handler {
        // An access cannot be ignored: the system ends the process then, too.
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            drop(sigaction(Some(&default_action())));
            // An access is repeated when this returns; a signal that was sent has to be sent again.
            if !is_fault {
                // SAFETY: it sends a signal, and may be called in handlers.
                unsafe { libc::raise(signal) };
            }
        }
        handler if displaced.flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: neither SIG_DFL nor SIG_IGN, so it is the address of a function; and the code that installed it
            // with SA_SIGINFO has promised that it has this signature.
            let handler = unsafe { std::mem::transmute::<libc::sighandler_t, Informed>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: it is the address of a function, as above, and without SA_SIGINFO it has this signature.
            let handler = unsafe { std::mem::transmute::<libc::sighandler_t, Simple>(handler) };
            handler(signal);
        }
    }
}

/// Returns the action that gets a foreign signal: the one that was displaced last; for a call from there, the one that
/// was displaced first; and for a call even from there, the default.
fn displaced_at(depth: usize) -> Displaced {
    // SAFETY: null, or a structure that is never freed and never changes.
    let newest = unsafe { NEWEST.load(Ordering::Acquire).as_ref() };
    let displaced = match depth {
        0 => newest,
        1 => FIRST.get().copied().filter(|first| Some(*first) != newest),
        _ => None,
    };
    displaced.copied().unwrap_or(Displaced { handler: libc::SIG_DFL, flags: 0 })
}

/// Returns a number that identifies the calling thread; not 0.
fn thread_id() -> usize {
    // SAFETY: it has no conditions, and only reads data that the thread got at its start.
    let thread = unsafe { libc::pthread_self() };
    #[expect(clippy::as_conversions, reason = "a number on some systems, a pointer on others")]
    let id = thread as usize;
    id
}
