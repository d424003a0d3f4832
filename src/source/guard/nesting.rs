//! Handlers that call each other: the depth of such calls in a thread.
//!
//! A library that installs its handler after ours may call ours for signals that it does not handle. If ours is
//! installed again, on top of that one, each would call the other for ever.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of threads that can be counted at the same time.
const THREADS: usize = 64;

/// The threads that are passing on a signal.
pub(super) struct Nesting {
    threads: [Thread; THREADS],
}

/// A thread, or space for one. Only the thread itself changes its entry.
struct Thread {
    /// 0 if unused.
    id: AtomicUsize,
    /// Stack address of the outermost call.
    frame: AtomicUsize,
    depth: AtomicUsize,
}

/// A call in progress.
pub(super) struct Call<'n> {
    /// `None` if there was no space for the thread.
    thread: Option<&'n Thread>,
    depth: usize,
}

impl Thread {
    const fn none() -> Self {
        Self { id: AtomicUsize::new(0), frame: AtomicUsize::new(0), depth: AtomicUsize::new(0) }
    }
}

impl Nesting {
    pub(super) const fn new() -> Self {
        Self { threads: [const { Thread::none() }; THREADS] }
    }

    /// Counts a call in the thread `id`, which is not 0; `frame` is an address in the stack frame of the call.
    pub(super) fn enter(&self, id: usize, frame: usize) -> Call<'_> {
        let take = |thread: &&Thread| thread.id.compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let known = self.threads.iter().find(|thread| thread.id.load(Ordering::Relaxed) == id);
        let (thread, depth) = match known {
            // Stacks grow down: this call is made by one that is still in progress.
            Some(thread) if thread.frame.load(Ordering::Relaxed) > frame => {
                (Some(thread), thread.depth.load(Ordering::Relaxed))
            }
            // That call never returned: a handler has left it by a jump.
            Some(thread) => (Some(thread), 0),
            None => (self.threads.iter().find(take), 0),
        };
        if let Some(thread) = thread {
            thread.depth.store(depth.saturating_add(1), Ordering::Relaxed);
            if depth == 0 {
                thread.frame.store(frame, Ordering::Relaxed);
            }
        }
        Call { thread, depth }
    }
}

impl Call<'_> {
    /// Returns the number of calls in the same thread around this one.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread {
            thread.depth.store(self.depth, Ordering::Relaxed);
            if self.depth == 0 {
                thread.id.store(0, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Nesting, THREADS};

    #[test]
    fn calls_of_one_thread_are_counted_and_those_of_others_are_not() {
        let nesting = Nesting::new();
        let depth = |id, frame| nesting.enter(id, frame).depth();
        let outer = nesting.enter(7, 1000);
        assert_eq!((outer.depth(), depth(8, 500)), (0, 0));
        let inner = nesting.enter(7, 900);
        assert_eq!((inner.depth(), depth(7, 800), depth(7, 700)), (1, 2, 2));
        drop(inner);
        assert_eq!(depth(7, 850), 1);
        drop(outer);
        assert_eq!(depth(7, 800), 0);
    }

    #[test]
    fn call_left_by_a_jump_does_not_count() {
        let nesting = Nesting::new();
        let depth = |frame| nesting.enter(7, frame).depth();
        std::mem::forget(nesting.enter(7, 1000));
        std::mem::forget(nesting.enter(7, 900));
        // A signal stack begins at the same address each time.
        assert_eq!(depth(1000), 0);
        assert_eq!(depth(800), 0);
    }

    #[test]
    fn threads_without_room_count_as_not_nested() {
        let nesting = Nesting::new();
        let depth = |id, frame| nesting.enter(id, frame).depth();
        let calls: Vec<_> = (1..=THREADS).map(|id| nesting.enter(id, 1000)).collect();
        let other = nesting.enter(THREADS + 1, 1000);
        assert_eq!((other.depth(), depth(THREADS + 1, 900), depth(5, 900)), (0, 0, 1));
        drop((calls, other));
        let outer = nesting.enter(THREADS + 1, 1000);
        assert_eq!((outer.depth(), depth(THREADS + 1, 900)), (0, 1));
    }
}
