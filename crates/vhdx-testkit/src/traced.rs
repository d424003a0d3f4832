//! A program that is stopped at each of its system calls: to count them, or to hold it at one of them while its files
//! change. Both depend on what the program does, not on how fast it is.
#![expect(unsafe_code, reason = "ptrace and wait4 have no safe form")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::ptr;
use std::thread::JoinHandle;

use libc::{c_int, pid_t};

use crate::optional::skip;
use crate::watchdog::Watchdog;

/// A program whose threads are all traced by the thread that started it.
pub struct Traced {
    child: Child,
    leader: pid_t,
    threads: BTreeMap<pid_t, Thread>,
    /// The thread that waits at the beginning of a system call.
    held: Option<pid_t>,
    ended: Option<(ExitStatus, libc::rusage)>,
    peak: u64,
    streams: [Option<JoinHandle<Vec<u8>>>; 2],
    watchdog: Watchdog,
}

#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    is_in_call: bool,
}

/// The beginning of a system call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    process: pid_t,
    pub number: i64,
    pub args: [u64; 6],
}

impl Call {
    /// Whether this is one of these calls.
    pub fn is_any(&self, numbers: &[libc::c_long]) -> bool {
        numbers.contains(&self.number)
    }

    /// File of an argument that is a file descriptor.
    pub fn file(&self, arg: usize) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/fd/{}", self.process, self.args[arg])).ok()
    }

    /// Whether this call waits for other threads: the number of these calls depends on timing.
    pub fn is_of_scheduling(&self) -> bool {
        self.is_any(&[libc::SYS_futex, libc::SYS_sched_yield, libc::SYS_restart_syscall, libc::SYS_clock_nanosleep])
    }
}

/// Result of a traced program.
pub struct Ended {
    pub status: ExitStatus,
    pub usage: libc::rusage,
    /// The largest resident set of this program alone, in bytes: that of `usage` includes the parent at the start.
    pub peak: u64,
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

/// How a thread continues: to its next system call, or without stopping at them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resume {
    ToCall,
    Freely,
}

impl Traced {
    /// Starts a program; `None` if programs cannot be traced. Its output to pipes is read.
    pub fn start(command: &mut Command) -> Option<Self> {
        let trace_me = || {
            // SAFETY: asks for this process to be traced by its parent; no argument is used.
            let asked = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) };
            if asked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        command.process_group(0);
        // SAFETY: between fork and exec there is only one system call.
        unsafe { command.pre_exec(trace_me) };
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                skip("ptrace", &format!("a program cannot be traced: {error}"));
                return None;
            }
        };
        let leader = pid_t::try_from(child.id()).unwrap();
        let streams = [child.stdout.take().map(read_all), child.stderr.take().map(read_all)];
        let watchdog = Watchdog::over(child.id());
        let threads = BTreeMap::from([(leader, Thread::default())]);
        let mut traced = Self { child, leader, threads, held: None, ended: None, peak: 0, streams, watchdog };
        // The first stop is that of `exec`.
        let (_, status) = traced.wait().expect("a traced program stops before it begins");
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP, "{status:#x}");
        let options = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_TRACEEXIT
            | libc::PTRACE_O_EXITKILL;
        let options = ptr::without_provenance_mut::<u8>(usize::try_from(options).unwrap());
        // SAFETY: the thread is stopped, and the options are a number.
        let set = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, leader, ptr::null_mut::<u8>(), options) };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        traced.held = Some(leader);
        Some(traced)
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Continues to the next system call of any thread, which is held at its beginning; `None` if the program ends
    /// before.
    pub fn next_call(&mut self) -> Option<Call> {
        if let Some(thread) = self.held.take() {
            resume(thread, Resume::ToCall, 0);
        }
        let (thread, call) = self.call_of_any(Resume::ToCall)?;
        self.held = Some(thread);
        Some(call)
    }

    /// Continues to the first system call that is wanted, and holds its thread; false if the program ends before.
    pub fn run_until(&mut self, mut wanted: impl FnMut(Call) -> bool) -> bool {
        while let Some(call) = self.next_call() {
            if wanted(call) {
                return true;
            }
        }
        false
    }

    /// Sends a signal that the program handles, and waits until it has done so, while one thread is held: that thread
    /// does nothing more that it would not do after the signal.
    pub fn signal(&mut self, number: c_int) {
        // SAFETY: the process has not been waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(self.leader, number) }, 0);
        // A program of one thread handles the signal before it continues.
        if self.threads.len() > 1 {
            while let Some((thread, call)) = self.call_of_any(Resume::ToCall) {
                resume(thread, Resume::ToCall, 0);
                if call.is_any(&[libc::SYS_rt_sigreturn]) {
                    return;
                }
            }
        }
    }

    /// Lets the program run to its end.
    #[track_caller]
    pub fn finish(mut self) -> Ended {
        if let Some(thread) = self.held.take() {
            resume(thread, Resume::Freely, 0);
        }
        while let Some((thread, _)) = self.call_of_any(Resume::Freely) {
            resume(thread, Resume::Freely, 0);
        }
        self.watchdog.assert_idle();
        let [out, err] = self.streams.map(|stream| stream.map_or_else(Vec::new, |thread| thread.join().unwrap()));
        let (status, usage) = self.ended.expect("the end of a process is waited for");
        Ended { status, usage, peak: self.peak, out, err }
    }

    /// Kills the program.
    pub fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.finish()
    }

    /// Waits for the next system call of a thread that is not held. Threads that stop for another reason continue.
    fn call_of_any(&mut self, to: Resume) -> Option<(pid_t, Call)> {
        loop {
            let (thread, status) = self.wait()?;
            let signal = libc::WSTOPSIG(status);
            let is_new = !self.threads.contains_key(&thread);
            let state = self.threads.entry(thread).or_default();
            if signal == libc::SIGTRAP | 0x80 {
                state.is_in_call = !state.is_in_call;
                if state.is_in_call
                    && let Some(call) = call_of(self.leader, thread)
                {
                    return Some((thread, call));
                }
                resume(thread, to, 0);
            } else if status >> 16 == libc::PTRACE_EVENT_EXIT {
                self.peak = self.peak.max(peak_of(thread).unwrap_or(0));
                resume(thread, to, 0);
            } else if status >> 16 != 0 || (is_new && signal == libc::SIGSTOP) {
                // A thread was started, or starts.
                resume(thread, to, 0);
            } else {
                resume(thread, to, signal);
            }
        }
    }

    /// Waits for the next stop of a thread; `None` if all have ended.
    fn wait(&mut self) -> Option<(pid_t, c_int)> {
        loop {
            // SAFETY: `rusage` is a plain structure of numbers, for which zeros are valid values.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            let (mut status, flags) = (0, libc::__WALL | libc::__WNOTHREAD);
            // SAFETY: both pointers are to values of the right types that live until the call returns. The process
            // group holds only the threads of this one process.
            let found = unsafe { libc::wait4(-self.leader, &raw mut status, flags, &raw mut usage) };
            if found < 0 {
                match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => continue,
                    error if error.raw_os_error() == Some(libc::ECHILD) => return None,
                    error => unreachable!("{error}"),
                }
            }
            if libc::WIFSTOPPED(status) {
                return Some((found, status));
            }
            self.threads.remove(&found);
            if found == self.leader {
                self.ended = Some((ExitStatus::from_raw(status), usage));
            }
        }
    }
}

/// Lets a stopped thread continue, with a signal or 0. The next wait reports a thread that was killed meanwhile.
fn resume(thread: pid_t, to: Resume, signal: c_int) {
    let request = if to == Resume::ToCall { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
    let signal = ptr::without_provenance_mut::<u8>(usize::try_from(signal).unwrap());
    // SAFETY: this thread traces the other one, and a signal is a number.
    let done = unsafe { libc::ptrace(request, thread, ptr::null_mut::<u8>(), signal) };
    let error = io::Error::last_os_error();
    assert!(done == 0 || error.raw_os_error() == Some(libc::ESRCH), "{error}");
}

/// The call at whose beginning a thread is stopped; `None` if the thread was killed meanwhile.
fn call_of(process: pid_t, thread: pid_t) -> Option<Call> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/syscall")).ok()?;
    let mut words = text.split_whitespace();
    let number = words.next()?.parse().ok()?;
    let mut args = [0; 6];
    for (arg, word) in args.iter_mut().zip(words) {
        *arg = u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
    }
    Some(Call { process, number, args })
}

/// The largest resident set of the process of a thread, in bytes; `None` if it was killed.
fn peak_of(thread: pid_t) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB").map(|number| number.parse::<u64>().unwrap() << 10)
}

fn read_all(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    })
}
