//! What the guard does to a process: each case has one of its own, since a process has one handler for each signal.
#![expect(unsafe_code, clippy::as_conversions, reason = "signals and mappings, and how libc wants a function")]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};

use vhdx_mmap::guard_mappings;

use super::{FIRST_BLOCK, cut, dense, open, touched_at};
use crate::support::temp_dir;

/// Runs a case in a process of its own.
fn in_process(case: &str) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["guard::process::a_case_in_its_own_process", "--exact", "--nocapture"]).env("VHDX_GUARD_CASE", case);
    // A tool that looks for mistakes in memory shall not take the signal for one.
    command.env("ASAN_OPTIONS", "handle_sigbus=0:detect_leaks=0");
    command.output().unwrap().status
}

/// What the handler before the guard has seen: how often it was called, and the address of the last time.
static SEEN: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

extern "C" fn before(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: installed with SA_SIGINFO.
    let info = unsafe { info.as_ref() }.unwrap();
    // SAFETY: this signal has an address.
    let address = unsafe { info.si_addr() };
    SEEN[0].fetch_add(1, Ordering::Relaxed);
    SEEN[1].store(address.addr(), Ordering::Relaxed);
    let page = address.map_addr(|address| address & !4095);
    // SAFETY: the page is one of the mapping that the case below has made for this.
    let replaced = unsafe {
        libc::mmap(page, 4096, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED, -1, 0)
    };
    assert_eq!(replaced, page);
}

extern "C" fn simple(_: libc::c_int) {
    SEEN[0].fetch_add(1, Ordering::Relaxed);
}

fn install(handler: usize, flags: libc::c_int) {
    // SAFETY: zeros are no flags and an empty set.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the handlers above have the signature that the flags say.
    assert_eq!(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) }, 0);
}

/// That the guard does its work in this process.
fn guard_works() {
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", 2);
    let disk = open(&path);
    cut(&path, FIRST_BLOCK + 4096);
    assert_eq!(touched_at(&super::WAYS[0].1(&disk).unwrap_err()), FIRST_BLOCK + 4096);
}

/// Touches a page that is gone, of a mapping that the library knows nothing of.
fn touch_a_foreign_page() -> (usize, u8) {
    let folder = temp_dir();
    let path = folder.path().join("foreign");
    std::fs::write(&path, vec![7; 8192]).unwrap();
    // SAFETY: it is not: that is what the case is about.
    let mapping = unsafe { memmap2::Mmap::map(&std::fs::File::open(&path).unwrap()) }.unwrap();
    cut(&path, 0);
    let place = &mapping[5000];
    (std::ptr::from_ref(place).addr(), std::hint::black_box(*place))
}

fn raise() {
    // SAFETY: it sends a signal to this thread.
    assert_eq!(unsafe { libc::raise(libc::SIGBUS) }, 0);
}

#[test]
fn a_case_in_its_own_process() {
    let Ok(case) = std::env::var("VHDX_GUARD_CASE") else { return };
    match case.as_str() {
        "no guard" => {
            let folder = temp_dir();
            let path = dense(folder.path(), "disk.vhdx", 2);
            let disk = crate::support::open(&path).unwrap();
            cut(&path, FIRST_BLOCK);
            drop(super::WAYS[0].1(&disk));
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
            // What can't be ignored is not.
            touch_a_foreign_page();
        }
        "of the standard library" => {
            guard_mappings().unwrap();
            guard_works();
            touch_a_foreign_page();
        }
        other => panic!("no case is called {other}"),
    }
}

#[test]
fn without_the_guard_a_lost_page_ends_the_process() {
    assert_eq!(in_process("no guard").signal(), Some(libc::SIGBUS));
}

#[test]
fn what_is_no_business_of_the_guard_goes_to_the_handler_before() {
    assert!(in_process("informed").success());
    assert!(in_process("simple").success());
}

#[test]
fn where_there_was_no_handler_the_process_ends_as_it_would_have() {
    for case in ["default", "default, sent", "ignored", "of the standard library"] {
        assert_eq!(in_process(case).signal(), Some(libc::SIGBUS), "{case}");
    }
}
