//! Work on several items at once, with results in the order of the items.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::args::{Common, ProgressChoice};
use crate::exit::Failure;
use crate::progress;
use crate::term::{self, Messages};

/// Number of results that may wait for those before them, for each thread.
const WAITING: usize = 4;

/// Number of items to work on at once: the number of --threads, or one per core.
pub(crate) fn at_once(common: &Common) -> usize {
    // The lines of this progress do not say what they are about.
    if common.progress() == ProgressChoice::Plain {
        return 1;
    }
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    common.threads.filter(|threads| *threads > 0).map_or_else(cores, usize::from)
}

/// State that all threads share.
struct State<'i, I, T> {
    items: &'i mut I,
    /// Number of items that were begun.
    begun: usize,
    /// Whether there are no more items.
    is_last: bool,
    /// Results that have not been taken, by the numbers of their items.
    done: BTreeMap<usize, (Messages, T)>,
    /// Number of items whose results were taken.
    taken: usize,
    is_stopped: bool,
}

/// Work that several threads do.
struct Shared<'i, I, T> {
    state: Mutex<State<'i, I, T>>,
    changed: Condvar,
    /// Number of items that may be begun before the next result is taken.
    room: usize,
}

impl<'i, I: Iterator, T> Shared<'i, I, T> {
    fn wait(&self, is_time: impl Fn(&State<'i, I, T>) -> bool) -> MutexGuard<'_, State<'i, I, T>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.wait_while(state, |state| !is_time(state)).unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state as soon as it is time for that.
    fn change(&self, is_time: impl Fn(&State<'i, I, T>) -> bool, change: impl FnOnce(&mut State<'i, I, T>)) {
        change(&mut self.wait(is_time));
        self.changed.notify_all();
    }

    /// Works on one item after the other.
    fn work(&self, work: impl Fn(I::Item) -> T) {
        let _stop = StopOnPanic(self);
        loop {
            let mut state = self
                .wait(|state| state.is_stopped || state.is_last || state.begun < state.taken.saturating_add(self.room));
            if state.is_stopped || state.is_last {
                return;
            }
            // The others wait: finding an item takes less time than working on it.
            let Some(item) = state.items.next() else {
                state.is_last = true;
                drop(state);
                return self.changed.notify_all();
            };
            let number = state.begun;
            state.begun = number.saturating_add(1);
            drop(state);
            let done = term::collect(|| work(item));
            self.change(|_| true, |state| drop(state.done.insert(number, done)));
        }
    }

    /// Returns the next result with its messages, or `None` after the last one.
    fn next(&self) -> Option<(Messages, T)> {
        let is_over = |state: &State<'i, I, T>| state.is_last && state.taken >= state.begun;
        let is_time =
            |state: &State<'i, I, T>| state.is_stopped || is_over(state) || state.done.contains_key(&state.taken);
        let mut state = self.wait(is_time);
        let number = state.taken;
        state.done.remove(&number)
    }
}

/// Ends the work if a thread panics: its result never comes.
struct StopOnPanic<'s, 'i, I: Iterator, T>(&'s Shared<'i, I, T>);

impl<I: Iterator, T> Drop for StopOnPanic<'_, '_, I, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.change(|_| true, |state| state.is_stopped = true);
        }
    }
}

/// Calls `work` for every item, on up to `at_once` threads, and `take` for the results, in the order of the items, on
/// the current thread. What `work` prints on standard error is printed with its result. Only a few results wait for
/// those before them.
///
/// # Errors
/// The error of `take`, which ends the work.
pub(crate) fn in_order<I: Iterator<Item: Send> + Send, T: Send>(
    at_once: usize,
    items: &mut I,
    work: impl Fn(I::Item) -> T + Sync,
    mut take: impl FnMut(T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (begun, is_last, done, taken, is_stopped) = (0, at_once < 2, BTreeMap::new(), 0, false);
    let state = State { items, begun, is_last, done, taken, is_stopped };
    let shared = Shared { state: Mutex::new(state), changed: Condvar::new(), room: at_once.saturating_mul(WAITING) };
    std::thread::scope(|scope| {
        let start = || std::thread::Builder::new().spawn_scoped(scope, || shared.work(&work)).ok();
        // If the system has no more threads, the current one does all the work.
        if (0..at_once).map_while(|_| start()).count() == 0 {
            shared.change(|_| true, |state| state.is_last = true);
        }
        while let Some((messages, value)) = shared.next() {
            progress::without_bars(|| messages.print());
            let taken = take(value);
            if taken.is_err() {
                progress::stop_all();
                shared.change(|_| true, |state| state.is_stopped = true);
                return taken;
            }
            shared.change(|_| true, |state| state.taken = state.taken.saturating_add(1));
        }
        Ok(())
    })?;
    let State { items, is_stopped, .. } = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if is_stopped { Ok(()) } else { items.try_for_each(|item| take(work(item))) }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::in_order;
    use crate::exit::{Exit, Failure};

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for at_once in [1, 2, 3, 8] {
            // The first item is done only after the second has begun, if there are two threads.
            let (begun, wait) = mpsc::channel();
            let wait = Mutex::new(wait);
            let mut taken = Vec::new();
            let ended = in_order(
                at_once,
                &mut (0..100),
                |item: usize| {
                    match item {
                        0 if at_once > 1 => wait.lock().unwrap().recv().unwrap(),
                        1 => begun.send(()).unwrap(),
                        _ => {}
                    }
                    item * 3
                },
                |value| {
                    taken.push(value);
                    Ok(())
                },
            );
            assert!(ended.is_ok());
            assert_eq!(taken, (0..100).map(|item| item * 3).collect::<Vec<_>>(), "{at_once}");
        }
    }

    #[test]
    fn results_that_wait_are_limited() {
        let begun = AtomicUsize::new(0);
        let mut taken = 0;
        let mut most_ahead = 0;
        let ended = in_order(
            2,
            &mut (0..1000),
            |_: usize| begun.fetch_add(1, Ordering::SeqCst),
            |_| {
                most_ahead = most_ahead.max(begun.load(Ordering::SeqCst) - taken);
                taken += 1;
                Ok(())
            },
        );
        assert_eq!((ended.is_ok(), taken), (true, 1000));
        assert!(most_ahead <= 8, "{most_ahead}");
    }

    #[test]
    fn a_failure_ends_the_work() {
        for at_once in [1, 4] {
            let mut taken = Vec::new();
            let ended = in_order(
                at_once,
                &mut (0..),
                |item: usize| item,
                |value| {
                    taken.push(value);
                    if value == 5 { Err(Failure::new(Exit::Io, "enough".to_owned())) } else { Ok(()) }
                },
            );
            assert!(ended.is_err());
            assert_eq!(taken, [0, 1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn a_panic_is_passed_on() {
        let ended =
            std::panic::catch_unwind(|| in_order(3, &mut (0..50), |item: usize| assert_ne!(item, 7), |()| Ok(())));
        assert!(ended.is_err());
    }
}
