//! Work on several items at once, with results in the order of the items.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::args::{Common, ProgressChoice};
use crate::bulk;
use crate::exit::Failure;
use crate::progress;
use crate::term::{self, Messages};

/// Number of results that may wait for those before them, for each thread.
const WAITING: usize = 4;

/// Number of images to work on at once: the number of --threads, or one per core.
pub(crate) fn images_at_once(common: &Common) -> usize {
    // The lines of this progress do not say what they are about. Where the system has no threads, there is one pool.
    let has_threads = bulk::all_threads(common).is_ok_and(|pool| pool.has_threads());
    if common.progress() == ProgressChoice::Plain || !has_threads {
        return 1;
    }
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    common.threads.filter(|threads| *threads > 0).map_or_else(cores, usize::from)
}

/// The items and their results.
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

/// The items, for all threads.
struct Queue<'i, I, T> {
    state: Mutex<State<'i, I, T>>,
    changed: Condvar,
    /// Number of items that may be begun before the next result is taken.
    room: usize,
}

impl<'i, I: Iterator, T> Queue<'i, I, T> {
    fn lock(&self) -> MutexGuard<'_, State<'i, I, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, is_ready: impl Fn(&State<'i, I, T>) -> bool) -> MutexGuard<'_, State<'i, I, T>> {
        self.changed.wait_while(self.lock(), |state| !is_ready(state)).unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State<'i, I, T>)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Works on one item after the other.
    fn work(&self, work: impl Fn(I::Item) -> T) {
        let _stop = Stop { queue: self, always: false };
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
            let done = term::collect_messages(|| work(item));
            self.change(|state| drop(state.done.insert(number, done)));
        }
    }

    /// Returns the next result with its messages, or `None` after the last one.
    fn next(&self) -> Option<(Messages, T)> {
        let is_over = |state: &State<'i, I, T>| state.is_last && state.taken >= state.begun;
        let is_ready =
            |state: &State<'i, I, T>| state.is_stopped || is_over(state) || state.done.contains_key(&state.taken);
        let mut state = self.wait(is_ready);
        let number = state.taken;
        state.done.remove(&number)
    }
}

/// Ends the work of all threads when it goes out of scope: `always`, or only if the thread panics, whose result never
/// comes.
struct Stop<'s, 'i, I: Iterator, T> {
    queue: &'s Queue<'i, I, T>,
    always: bool,
}

impl<I: Iterator, T> Drop for Stop<'_, '_, I, T> {
    fn drop(&mut self) {
        if self.always || std::thread::panicking() {
            self.queue.change(|state| state.is_stopped = true);
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
    if at_once < 2 {
        return items.try_for_each(|item| take(work(item)));
    }
    let state = State { items, begun: 0, is_last: false, done: BTreeMap::new(), taken: 0, is_stopped: false };
    let room = at_once.saturating_mul(WAITING);
    let queue = Queue { state: Mutex::new(state), changed: Condvar::new(), room };
    let started = std::thread::scope(|scope| {
        let _stop = Stop { queue: &queue, always: true };
        let start = || std::thread::Builder::new().spawn_scoped(scope, || queue.work(&work)).ok();
        let started = (0..at_once).map_while(|_| start()).count();
        while let Some((messages, value)) = if started > 0 { queue.next() } else { None } {
            progress::without_bars(|| {
                messages.print();
                take(value)
            })
            .inspect_err(|_| progress::stop_all())?;
            queue.change(|state| state.taken = state.taken.saturating_add(1));
        }
        Ok::<_, Failure>(started)
    })?;
    let state = queue.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    // If the system has no more threads, the current one does all the work.
    if started > 0 { Ok(()) } else { state.items.try_for_each(|item| take(work(item))) }
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
