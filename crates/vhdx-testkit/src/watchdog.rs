//! Kills a program that hangs, so that its test fails instead of waiting forever. No test depends on the delay.

use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Much longer than any program of a test needs, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Watches one program until it is dropped.
pub struct Watchdog {
    ended: Option<Sender<()>>,
    thread: Option<JoinHandle<bool>>,
}

impl Watchdog {
    /// Watches the process with this id.
    pub fn over(pid: u32) -> Self {
        let (ended, end) = channel();
        let watch = move || {
            let hangs = end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
            if hangs {
                kill(pid);
            }
            hangs
        };
        Self { ended: Some(ended), thread: Some(std::thread::spawn(watch)) }
    }

    /// Fails if the program was killed.
    #[track_caller]
    pub fn assert_idle(mut self) {
        drop(self.ended.take());
        let hung = self.thread.take().unwrap().join().unwrap();
        assert!(!hung, "the program did not come to an end by itself");
    }
}

fn kill(pid: u32) {
    let (program, args) = if cfg!(windows) { ("taskkill", ["/F", "/PID"]) } else { ("kill", ["-KILL", "--"]) };
    Command::new(program).args(args).arg(pid.to_string()).status().unwrap();
}
