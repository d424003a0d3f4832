//! Work in the order of the input: digests that cannot be computed in parts, and writing to a pipe.
//!
//! Each such consumer has a thread of its own, and processes the units one after the other. The threads of the pool run
//! ahead of them, as far as there is space: they get the bytes, and do the work on each unit that can be done in any
//! order. If the system refuses a thread for each consumer, several consumers share one.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::thread::Scope;

use crate::source::Buffer;
use crate::threads::{self, lock};

use super::error::ScanError;
use super::fetch::UnitBuffer;
use super::input::Piece;
use super::plan::{Planner, Window};
use super::release::release;
use super::unordered::{Bulk, Done, UnitBytes, on_all_threads};

/// Number of units in progress at once.
const ROOM: usize = 6;

/// Number of bytes that are planned at once.
const WINDOW: u64 = 64 << 20;

/// Consumer of an input in order.
pub(crate) type Consumer<'c, E> = Box<dyn FnMut(&UnitBytes<'_>) -> Result<(), E> + Send + 'c>;

/// A unit in progress.
#[derive(Default)]
struct Slot<'a> {
    start: u64,
    length: u64,
    was_cold: bool,
    pieces: Vec<Piece<'a>>,
    loaded: UnitBuffer<'a>,
    memory: Buffer,
}

impl<'a> Slot<'a> {
    fn bytes(&self) -> Result<UnitBytes<'_>, ScanError> {
        let segments = self.loaded.segments(&self.pieces)?;
        Ok(UnitBytes { start: self.start, length: self.length, segments })
    }

    /// Checks that no byte that was used so far was lost.
    fn check(&self) -> Result<(), ScanError> {
        Ok(self.loaded.check(&self.pieces)?)
    }

    fn leave(&mut self) {
        release(self.loaded.leave(self.was_cold).collect());
    }
}

/// The units of a plan, one by one.
struct Units<'a> {
    planner: Planner<'a, 1>,
    window: Window<'a>,
    next: usize,
}

impl<'a> Units<'a> {
    fn new(planner: Planner<'a, 1>) -> Self {
        Self { planner, window: Window::default(), next: 0 }
    }

    /// Puts the next unit into `slot`. Returns false after the last one.
    fn next(&mut self, slot: &mut Slot<'a>) -> Result<bool, ScanError> {
        if self.next >= self.window.units.len() {
            let Some(window) = self.planner.next_window() else { return Ok(false) };
            (self.window, self.next) = (window?, 0);
        }
        let (unit, pieces) = self.window.unit(self.next);
        self.next = self.next.saturating_add(1);
        (slot.start, slot.length, slot.was_cold) = (unit.start, unit.length, unit.was_cold);
        slot.pieces.clear();
        slot.pieces.extend_from_slice(pieces);
        Ok(true)
    }
}

/// State of a unit in progress.
enum Progress<P> {
    /// A thread works on it.
    InWork,
    /// `waiting_for` threads have yet to show it to their consumers; `value` is the result of the work on it.
    Ready { waiting_for: usize, value: P },
}

/// State that all threads share.
struct State<'a, P, E, T> {
    units: Units<'a>,
    /// The units in progress, from the first one that is not done.
    in_hand: VecDeque<Progress<P>>,
    /// Number of the first unit in progress.
    first: usize,
    /// Number of threads that show units to consumers.
    consuming: usize,
    /// Number of the unit at which the work ends, once it is known: after the last one, or one that failed.
    end: Option<usize>,
    failed: Option<E>,
    take: T,
}

impl<P, E, T> State<'_, P, E, T> {
    /// Ends the work before unit `number`.
    fn end_at(&mut self, number: usize, failed: Option<E>) {
        if self.end.is_none_or(|end| number < end) {
            (self.end, self.failed) = (Some(number), failed);
        }
    }

    fn next(&self) -> usize {
        self.first.saturating_add(self.in_hand.len())
    }

    fn is_past_end(&self, number: usize) -> bool {
        self.end.is_some_and(|end| number >= end)
    }
}

/// The units in progress, and the threads that work on them.
struct Ring<'a, P, E, T> {
    slots: Vec<RwLock<Slot<'a>>>,
    state: Mutex<State<'a, P, E, T>>,
    changed: Condvar,
}

impl<'a> Bulk<'a, '_, 1> {
    /// Shows every unit to `map`, in any order and on all threads of the current pool, and to each of `consumers` in
    /// order, zeros included. The results of `map` go to `take`, in order, after all are done with the unit.
    ///
    /// # Errors
    /// The first error in the order of the input: of reading, of `map`, of a consumer, or of `take`. Everything before
    /// an error in reading has been shown to the consumers. It is not an error if the system has fewer threads than
    /// there are consumers.
    pub(crate) fn in_order<P: Send, E: Send + From<ScanError>>(
        &self,
        map: impl Fn(&UnitBytes<'_>, &mut Buffer) -> Result<P, E> + Sync,
        mut consumers: Vec<Consumer<'_, E>>,
        mut take: impl FnMut(Done<P>) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        if threads::count() < 2 || consumers.is_empty() {
            return self.on_one_thread(map, consumers, take);
        }
        let units = Units::new(Self { visit_zeros: true, ..*self }.planner(WINDOW));
        let state =
            State { units, in_hand: VecDeque::new(), first: 0, consuming: 0, end: None, failed: None, take: &mut take };
        let ring = Ring {
            slots: (0..ROOM).map(|_| RwLock::default()).collect(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        };
        let is_done = std::thread::scope(|scope| {
            // Each thread waits for its consumers, which are assigned once the number of threads is known.
            let start = || {
                let (hand_over, consumers) = mpsc::channel::<&mut [Consumer<'_, E>]>();
                let ring = &ring;
                let work = move || consumers.into_iter().for_each(|consumers| ring.consume(consumers));
                spawn(scope, work).ok().map(|()| hand_over)
            };
            let spawned: Vec<_> = consumers.iter().map_while(|_| start()).collect();
            if spawned.is_empty() {
                return false;
            }
            let most = consumers.len().div_ceil(spawned.len());
            let shares = consumers.chunks_mut(most);
            let consuming = shares.len();
            lock(&ring.state).consuming = consuming;
            // A thread that cannot receive them has panicked, which ends the scope with a panic.
            spawned.into_iter().zip(shares).for_each(|(thread, share)| drop(thread.send(share)));
            // No more threads than cores: a thread that waits for a core delays the consumers. More than two for each
            // of them would only wait, and are left for other work.
            let most = consuming.saturating_mul(2);
            on_all_threads(threads::count().saturating_sub(consuming).min(most).max(1), &|| {
                ring.work(self, &map);
                Vec::<()>::new()
            });
            true
        });
        let state = ring.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !is_done {
            return self.on_one_thread(map, consumers, take);
        }
        match state.failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Does the work on the calling thread alone.
    ///
    /// # Errors
    /// The errors of [`Bulk::in_order`].
    pub(crate) fn on_one_thread<P, E: From<ScanError>>(
        &self,
        map: impl Fn(&UnitBytes<'_>, &mut Buffer) -> Result<P, E>,
        mut consumers: Vec<Consumer<'_, E>>,
        mut take: impl FnMut(Done<P>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut units = Units::new(Self { visit_zeros: true, ..*self }.planner(WINDOW));
        let (mut slot, mut memory) = (Slot::default(), Buffer::default());
        while units.next(&mut slot)? {
            slot.loaded.load(&slot.pieces, self.access).map_err(ScanError::Read)?;
            let bytes = slot.bytes()?;
            let mapped = map(&bytes, &mut memory);
            slot.check()?;
            let value = mapped?;
            let consumed = consumers.iter_mut().try_for_each(|consume| consume(&bytes));
            slot.check()?;
            consumed?;
            drop(bytes);
            slot.leave();
            take(Done { start: slot.start, length: slot.length, value: Some(value) })?;
        }
        Ok(())
    }
}

impl<'a, P: Send, E: Send + From<ScanError>, T: FnMut(Done<P>) -> Result<(), E> + Send> Ring<'a, P, E, T> {
    /// Works on one unit after the other, as long as there is space.
    fn work(&self, bulk: &Bulk<'a, '_, 1>, map: impl Fn(&UnitBytes<'_>, &mut Buffer) -> Result<P, E>) {
        let _let_others_go = EndOnPanic(self);
        loop {
            let mut state = self.wait(|state| state.in_hand.len() < ROOM || state.end.is_some());
            let number = state.next();
            if state.is_past_end(number) {
                return;
            }
            let Some(slot) = self.slot(number) else { return };
            let mut slot = slot.write().unwrap_or_else(PoisonError::into_inner);
            match state.units.next(&mut slot) {
                Ok(true) => state.in_hand.push_back(Progress::InWork),
                Ok(false) => state.end_at(number, None),
                Err(error) => state.end_at(number, Some(error.into())),
            }
            let is_end = state.is_past_end(number);
            drop(state);
            if is_end {
                self.changed.notify_all();
                return;
            }
            let mapped = slot.work(bulk, &map);
            drop(slot);
            let mut state = lock(&self.state);
            match mapped {
                Ok(value) => {
                    let (place, waiting_for) = (number.saturating_sub(state.first), state.consuming);
                    if let Some(progress) = state.in_hand.get_mut(place) {
                        *progress = Progress::Ready { waiting_for, value };
                    }
                }
                Err(error) => state.end_at(number, Some(error)),
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Shows one unit after the other to each of `consumers`.
    fn consume(&self, consumers: &mut [Consumer<'_, E>]) {
        let _let_others_go = EndOnPanic(self);
        for number in 0_usize.. {
            let is_ready = |state: &State<'a, P, E, T>| {
                let progress = number.checked_sub(state.first).and_then(|place| state.in_hand.get(place));
                matches!(progress, Some(Progress::Ready { .. })) || state.is_past_end(number)
            };
            let state = self.wait(is_ready);
            if state.is_past_end(number) {
                return;
            }
            drop(state);
            let Some(slot) = self.slot(number) else { return };
            let slot = slot.read().unwrap_or_else(PoisonError::into_inner);
            let consumed = slot
                .bytes()
                .map_err(E::from)
                .and_then(|bytes| consumers.iter_mut().try_for_each(|consume| consume(&bytes)));
            let consumed = slot.check().map_err(E::from).and(consumed);
            drop(slot);
            self.consumed(number, consumed);
        }
    }

    /// Notes that the consumers of one thread have processed a unit.
    fn consumed(&self, number: usize, consumed: Result<(), E>) {
        let mut state = lock(&self.state);
        if let Err(error) = consumed {
            state.end_at(number, Some(error));
        } else {
            let place = number.saturating_sub(state.first);
            if let Some(Progress::Ready { waiting_for, .. }) = state.in_hand.get_mut(place) {
                *waiting_for = waiting_for.saturating_sub(1);
            }
            // All consumers go in order, so finished units are at the front.
            while let Some(Progress::Ready { waiting_for: 0, .. }) = state.in_hand.front() {
                let Some(Progress::Ready { value, .. }) = state.in_hand.pop_front() else { break };
                let number = state.first;
                state.first = number.saturating_add(1);
                let Some(slot) = self.slot(number) else { break };
                let mut slot = slot.write().unwrap_or_else(PoisonError::into_inner);
                slot.leave();
                let done = Done { start: slot.start, length: slot.length, value: Some(value) };
                if let Err(error) = (state.take)(done) {
                    state.end_at(number, Some(error));
                }
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn slot(&self, number: usize) -> Option<&RwLock<Slot<'a>>> {
        self.slots.get(number.checked_rem(ROOM)?)
    }

    fn wait(&self, is_time: impl Fn(&State<'a, P, E, T>) -> bool) -> MutexGuard<'_, State<'a, P, E, T>> {
        let state = lock(&self.state);
        self.changed.wait_while(state, |state| !is_time(state)).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a thread, if the system has one.
fn spawn<'scope>(scope: &'scope Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) -> io::Result<()> {
    #[cfg(test)]
    tests::take_a_thread()?;
    std::thread::Builder::new().spawn_scoped(scope, work).map(drop)
}

/// A panic in a callback must not leave the other threads waiting for ever.
struct EndOnPanic<'r, 'a, P, E, T>(&'r Ring<'a, P, E, T>);

impl<P, E, T> Drop for EndOnPanic<'_, '_, P, E, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.state).end_at(0, None);
            self.0.changed.notify_all();
        }
    }
}

impl<'a> Slot<'a> {
    /// Gets the bytes, and does the work that can be done in any order.
    fn work<P, E: From<ScanError>>(
        &mut self,
        bulk: &Bulk<'a, '_, 1>,
        map: impl Fn(&UnitBytes<'_>, &mut Buffer) -> Result<P, E>,
    ) -> Result<P, E> {
        self.loaded.load(&self.pieces, bulk.access).map_err(ScanError::Read)?;
        let mut memory = std::mem::take(&mut self.memory);
        let mapped = self.bytes().map_err(E::from).and_then(|bytes| map(&bytes, &mut memory));
        self.memory = memory;
        self.check().map_err(E::from).and(mapped)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        /// Number of threads that the system has left for work that begins in this thread.
        static THREADS_LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub(super) fn take_a_thread() -> io::Result<()> {
        let left = THREADS_LEFT.get().checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        THREADS_LEFT.set(left);
        Ok(())
    }

    #[cfg(feature = "rayon")]
    #[test]
    fn work_in_order_needs_no_threads() {
        use super::Consumer;
        use crate::disk::Segment;
        use crate::scan::{Access, Bulk, Input, ScanError, ScanOptions};
        use crate::source::Source;

        let bytes: Vec<u8> = (0..9_000_001_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let source = Source::from_vec(bytes.clone());
        for size in [2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(size).build().unwrap();
            for threads in 0..=3 {
                let (inputs, options) = ([Input::raw(&source)], ScanOptions::new());
                let bulk = Bulk { inputs, access: Access::Read, visit_zeros: true, options };
                let (mut found, mut starts) = (vec![Vec::new(); 3], Vec::new());
                let left = pool.install(|| {
                    THREADS_LEFT.set(threads);
                    let consumer = |found| -> Consumer<'_, ScanError> {
                        let found: &mut Vec<u8> = found;
                        Box::new(|unit| {
                            unit.segments().flat_map(Segment::slices).for_each(|bytes| found.extend_from_slice(bytes));
                            Ok(())
                        })
                    };
                    let consumers = found.iter_mut().map(consumer).collect();
                    let take = |done: super::Done<u64>| {
                        assert_eq!(done.value, Some(done.start));
                        starts.push(done.start);
                        Ok(())
                    };
                    bulk.in_order(|unit, _| Ok::<_, ScanError>(unit.start), consumers, take).unwrap();
                    THREADS_LEFT.replace(usize::MAX)
                });
                let what = format!("{threads} threads for three consumers, in a pool of {size}");
                assert!(found.iter().all(|found| *found == bytes), "{what}");
                assert_eq!(starts, (0..9).map(|unit| unit << 20).collect::<Vec<u64>>(), "{what}");
                assert_eq!(left, 0, "{what}: all of them are used");
            }
        }
    }
}
