//! Reads.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use fuser::{Errno, INodeNo, Notifier, ReplyData};
use vhdx_mmap::{Error, Result, Segment};

use super::to_u64;
use crate::{Export, Observer};

/// Replies of at most this many bytes are copied and checked before they are sent: as fast as borrowing is.
const SHORT: u64 = 64 << 10;

thread_local! {
    /// Content that is copied, of the thread's last request. The kernel asks for 1 MiB at most.
    static COPIED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Channel to the kernel for what it has not asked for. Empty until the session has begun.
pub(super) type ToKernel = Arc<OnceLock<Notifier>>;

/// A read of a range that is inside the export.
pub(super) struct Read<'e> {
    pub(super) export: &'e Export,
    pub(super) inode: INodeNo,
    pub(super) range: Range<u64>,
}

impl Read<'_> {
    /// Answers the read: with the bytes of the mapping if they are contiguous, with a copy otherwise.
    ///
    /// A page that has vanished from the mapping cannot be sent: the kernel makes `EIO` of that. But the last page of a
    /// truncated file has zeros after its end. So the file is checked before its bytes are sent, and again after that:
    /// what the kernel got from a file that was truncated at that moment is dropped from its cache.
    pub(super) fn answer(&self, reply: ReplyData, observer: &impl Observer, kernel: &ToKernel) {
        let length = self.range.end.saturating_sub(self.range.start);
        if length > SHORT && self.export.can_borrow() {
            let content = self.export.range();
            let mut segments = content.segments(self.range.clone());
            if let Some(Ok(Segment::Data(bytes))) = segments.next()
                && to_u64(bytes.len()) == length
                && content.check_lost(self.range.clone()).is_ok()
            {
                reply.data(bytes);
                // After the last segment, the iterator checks what was borrowed.
                if let Some(Err(error)) = segments.next() {
                    observer.read_failed(self.export, &error);
                    self.forget(kernel);
                }
                return;
            }
        }
        COPIED.with_borrow_mut(|buffer| {
            let length = usize::try_from(length).unwrap_or(0);
            if buffer.len() < length {
                buffer.resize(length, 0);
            }
            let bytes = buffer.get_mut(..length).unwrap_or_default();
            match self.copy(bytes) {
                Ok(()) => reply.data(bytes),
                Err(error) => fail(self.export, &error, reply, observer),
            }
        });
    }

    fn copy(&self, bytes: &mut [u8]) -> Result<()> {
        self.export.range().read_at(bytes, self.range.start)?;
        self.export.fail_if_lost(self.range.clone())?;
        // The system may have read zeros in the last page of a file that was being truncated.
        self.export.range().check_lost(self.range.clone())
    }

    /// Drops the range from the kernel's cache.
    fn forget(&self, kernel: &ToKernel) {
        let (kernel, inode, range) = (Arc::clone(kernel), self.inode, self.range.clone());
        // It waits for other reads of these pages, which this thread may have to answer.
        let work = move || {
            let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            if let Some(kernel) = kernel.get() {
                // Without the file in its cache, there is nothing to drop.
                let _ = kernel.inval_inode(inode, signed(range.start), signed(range.end.saturating_sub(range.start)));
            }
        };
        // Without a thread, the file keeps what a program has seen already.
        let _ = std::thread::Builder::new().name("fuse".to_owned()).spawn(work);
    }
}

fn fail(export: &Export, error: &Error, reply: ReplyData, observer: &impl Observer) {
    observer.read_failed(export, error);
    reply.error(Errno::EIO);
}
