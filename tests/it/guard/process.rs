//! Effects of the guard on a process: each case has a process of its own, since a process has one handler for each
//! signal.
#![expect(unsafe_code, clippy::as_conversions, reason = "signals and mappings, and how libc wants a function")]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use vhdx_mmap::{guard_is_active, guard_mappings};

use super::{FIRST_BLOCK, cut, dense, open, touched_at};
use crate::support::temp_dir;

/// Runs a case in a process of its own.
fn in_process(case: &str) -> ExitStatus {
    run_case(case, Path::new("")).status
}

/// Runs a case in a process of its own, which reads the image at `path`.
pub(super) fn run_case(case: &str, path: &Path) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["guard::process::case_in_own_process", "--exact", "--nocapture"]);
    command.env("VHDX_GUARD_CASE", case).env("VHDX_GUARD_IMAGE", path);
    // A memory checker must not take the signal for an error.
    command.env("ASAN_OPTIONS", "handle_sigbus=0:detect_leaks=0");
    command.output().unwrap()
}

/// Text that a handler writes to standard error each time it is called.
const MARK: &str = "<called>";

/// Returns how often a case reports a call of its handler.
fn calls(output: &Output) -> usize {
    String::from_utf8_lossy(&output.stderr).matches(MARK).count()
}

/// State of the handler before the guard: number of its calls, and address of the last one.
static SEEN: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

extern "C" fn before(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: installed with SA_SIGINFO.
    let info = unsafe { info.as_ref() }.unwrap();
    // SAFETY: this signal has an address.
    let address = unsafe { info.si_addr() };
    SEEN[0].fetch_add(1, Ordering::Relaxed);
    SEEN[1].store(address.addr(), Ordering::Relaxed);
    let page = address.map_addr(|address| address & !4095);
    // SAFETY: the page belongs to a mapping that the case below has made for this.
    let replaced = unsafe {
        libc::mmap(page, 4096, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED, -1, 0)
    };
    assert_eq!(replaced, page);
}

extern "C" fn simple(_: libc::c_int) {
    SEEN[0].fetch_add(1, Ordering::Relaxed);
}

fn install(handler: usize, flags: libc::c_int) {
    replace(handler, flags);
}

/// Installs a handler, and returns the previous one.
fn replace(handler: usize, flags: libc::c_int) -> libc::sigaction {
    // SAFETY: zeros are no flags and an empty set.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the same.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the handlers of this file have the signature for these flags.
    assert_eq!(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before) }, 0);
    before
}

/// Number of calls of a handler that was installed after the guard.
static LATER: AtomicUsize = AtomicUsize::new(0);

/// The action that a handler that was installed after the guard has displaced.
static DISPLACED: OnceLock<libc::sigaction> = OnceLock::new();

/// A handler that passes every signal on to the one that it displaced.
extern "C" fn chaining(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    LATER.fetch_add(1, Ordering::Relaxed);
    let displaced = DISPLACED.get().unwrap();
    assert_ne!(displaced.sa_flags & libc::SA_SIGINFO, 0);
    // SAFETY: the displaced action is a handler with this signature, by its flags.
    let next: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
        unsafe { std::mem::transmute(displaced.sa_sigaction) };
    next(signal, info, context);
}

fn install_chaining() {
    let handler: extern "C" fn(_, _, _) = chaining;
    let displaced = replace(handler as *const () as usize, libc::SA_SIGINFO);
    DISPLACED.get_or_init(|| displaced);
}

/// A handler that reports its call, restores what it displaced, and sends the signal again, like Python's
/// `faulthandler`.
extern "C" fn reporting(signal: libc::c_int) {
    // SAFETY: it writes existing bytes.
    unsafe { libc::write(2, MARK.as_ptr().cast(), MARK.len()) };
    // SAFETY: a previous action is a valid one.
    unsafe { libc::sigaction(signal, DISPLACED.get().unwrap(), std::ptr::null_mut()) };
    // SAFETY: it sends a signal to this thread.
    unsafe { libc::raise(signal) };
}

fn install_reporting() {
    let handler: extern "C" fn(_) = reporting;
    let displaced = replace(handler as *const () as usize, libc::SA_NODEFER);
    DISPLACED.get_or_init(|| displaced);
}

/// Asserts that the guard works in this process.
fn guard_works() {
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", 2);
    let disk = open(&path);
    cut(&path, FIRST_BLOCK + 4096);
    assert_eq!(touched_at(&super::WAYS[0].1(&disk).unwrap_err()), FIRST_BLOCK + 4096);
}

/// Accesses a lost page of a mapping that the library does not know.
fn touch_a_foreign_page() -> (usize, u8) {
    let folder = temp_dir();
    let path = folder.path().join("foreign");
    std::fs::write(&path, vec![7; 8192]).unwrap();
    // SAFETY: it is not: that is the purpose of the case.
    let mapping = unsafe { memmap2::Mmap::map(&std::fs::File::open(&path).unwrap()) }.unwrap();
    cut(&path, 0);
    let place = &mapping[5000];
    (std::ptr::from_ref(place).addr(), std::hint::black_box(*place))
}

fn raise() {
    // SAFETY: it sends a signal to this thread.
    assert_eq!(unsafe { libc::raise(libc::SIGBUS) }, 0);
}

/// Returns the path of the image that a case reads.
fn image() -> PathBuf {
    std::env::var_os("VHDX_GUARD_IMAGE").unwrap().into()
}

#[test]
fn case_in_own_process() {
    let Ok(case) = std::env::var("VHDX_GUARD_CASE") else { return };
    match case.as_str() {
        "no guard" => {
            let folder = temp_dir();
            let path = dense(folder.path(), "disk.vhdx", 2);
            let disk = crate::support::open(&path).unwrap();
            let bytes = disk.slice(0, 4096).unwrap().unwrap();
            cut(&path, FIRST_BLOCK);
            super::sum(bytes);
        }
        "informed" => {
            let handler: extern "C" fn(_, _, _) = before;
            install(handler as *const () as usize, libc::SA_SIGINFO);
            guard_mappings().unwrap();
            guard_mappings().unwrap();
            guard_works();
            assert_eq!(SEEN[0].load(Ordering::Relaxed), 0);
            let (address, value) = touch_a_foreign_page();
            assert_eq!((SEEN[0].load(Ordering::Relaxed), SEEN[1].load(Ordering::Relaxed), value), (1, address, 0));
            guard_works();
        }
        "simple" => {
            let handler: extern "C" fn(_) = simple;
            install(handler as *const () as usize, 0);
            guard_mappings().unwrap();
            guard_works();
            raise();
            raise();
            assert_eq!(SEEN[0].load(Ordering::Relaxed), 2);
            guard_works();
        }
        "default" | "default, sent" => {
            install(libc::SIG_DFL, 0);
            guard_mappings().unwrap();
            guard_works();
            if case == "default" {
                touch_a_foreign_page();
            } else {
                raise();
            }
        }
        "ignored" => {
            install(libc::SIG_IGN, 0);
            guard_mappings().unwrap();
            raise();
            guard_works();
            // A signal that cannot be ignored is not.
            touch_a_foreign_page();
        }
        "of the standard library" => {
            guard_mappings().unwrap();
            guard_works();
            touch_a_foreign_page();
        }
        "displaced" => {
            assert!(!guard_is_active());
            guard_mappings().unwrap();
            assert!(guard_is_active());
            let handler: extern "C" fn(_, _, _) = before;
            install(handler as *const () as usize, libc::SA_SIGINFO);
            assert!(!guard_is_active());
            guard_mappings().unwrap();
            assert!(guard_is_active());
            guard_works();
            assert_eq!(SEEN[0].load(Ordering::Relaxed), 0);
            touch_a_foreign_page();
            assert_eq!(SEEN[0].load(Ordering::Relaxed), 1);
        }
        "displaced before a mapping" => {
            let folder = temp_dir();
            let path = dense(folder.path(), "disk.vhdx", 1);
            crate::support::open(&path).unwrap();
            assert!(!guard_is_active(), "the guard was not requested");
            guard_mappings().unwrap();
            for _ in 0..3 {
                install(libc::SIG_DFL, 0);
                assert!(!guard_is_active());
                let disk = crate::support::open(&path).unwrap();
                assert!(guard_is_active());
                drop(disk);
            }
            let disk = crate::support::open(&path).unwrap();
            cut(&path, FIRST_BLOCK);
            assert_eq!(touched_at(&super::WAYS[0].1(&disk).unwrap_err()), FIRST_BLOCK);
        }
        "chaining" => {
            let handler: extern "C" fn(_, _, _) = before;
            install(handler as *const () as usize, libc::SA_SIGINFO);
            guard_mappings().unwrap();
            install_chaining();
            guard_mappings().unwrap();
            guard_works();
            assert_eq!((LATER.load(Ordering::Relaxed), SEEN[0].load(Ordering::Relaxed)), (0, 0));
            // Each of the two handlers is called once: the guard, the later one, the guard, the previous one.
            for times in 1..4 {
                let (address, value) = touch_a_foreign_page();
                assert_eq!((LATER.load(Ordering::Relaxed), SEEN[0].load(Ordering::Relaxed)), (times, times));
                assert_eq!((SEEN[1].load(Ordering::Relaxed), value), (address, 0));
            }
            guard_works();
        }
        "chaining, the system last" => {
            guard_mappings().unwrap();
            install(libc::SIG_DFL, 0);
            guard_mappings().unwrap();
            install_chaining();
            guard_mappings().unwrap();
            guard_works();
            touch_a_foreign_page();
        }
        "reporting" | "reporting, sent" | "reporting, before and after" => {
            if case == "reporting, before and after" {
                let handler: extern "C" fn(_) = reporting;
                install(handler as *const () as usize, libc::SA_NODEFER);
            } else {
                install(libc::SIG_DFL, 0);
            }
            guard_mappings().unwrap();
            install_reporting();
            guard_mappings().unwrap();
            guard_works();
            if case == "reporting, sent" {
                raise();
            } else {
                touch_a_foreign_page();
            }
        }
        "many pages of a truncated file" => super::many::truncated(&image()),
        "many pages of a failing medium" => super::many::failing(&image()),
        "truncated at the limit of mappings" => super::many::truncated_at_the_limit(&image()),
        "failing at the limit of mappings" => super::many::failing_at_the_limit(&image()),
        other => panic!("no case is called {other}"),
    }
}

#[test]
fn lost_page_ends_process_without_guard() {
    assert_eq!(in_process("no guard").signal(), Some(libc::SIGBUS));
}

#[test]
fn foreign_signal_goes_to_previous_handler() {
    assert!(in_process("informed").success());
    assert!(in_process("simple").success());
}

#[test]
fn foreign_signal_ends_process_without_handler() {
    for case in ["default", "default, sent", "ignored", "of the standard library"] {
        assert_eq!(in_process(case).signal(), Some(libc::SIGBUS), "{case}");
    }
}

#[test]
fn displaced_guard_is_installed_again() {
    assert!(in_process("displaced").success());
    assert!(in_process("displaced before a mapping").success());
}

#[test]
fn mutually_calling_handlers_terminate() {
    assert!(in_process("chaining").success());
    assert_eq!(in_process("chaining, the system last").signal(), Some(libc::SIGBUS));
}

#[test]
fn handler_that_sends_the_signal_again_is_called_once() {
    for case in ["reporting", "reporting, sent", "reporting, before and after"] {
        let output = run_case(case, Path::new(""));
        assert_eq!((output.status.signal(), calls(&output)), (Some(libc::SIGBUS), 1), "{case}");
    }
}
