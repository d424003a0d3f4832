//! Time and memory of the command for images that are made to be expensive: prints the table of
//! `docs/hostile-input.md`, from files of several GiB.
#![cfg_attr(
    target_os = "linux",
    expect(
        unsafe_code,
        clippy::print_stdout,
        clippy::unwrap_used,
        clippy::zombie_processes,
        reason = "a benchmark prints what it measured, and waits for processes by wait4"
    )
)]

#[cfg(target_os = "linux")]
mod measure {
    use std::fs::File;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use vhdx_testkit::inputs::{self, COMMANDS, Size};

    /// Number of runs of each command; the median counts.
    const TIMES: usize = 3;

    /// Cost of a run.
    struct Cost {
        code: Option<i32>,
        processor: Duration,
        peak: u64,
    }

    fn run(command: &str, image: &Path, out: &Path) -> Cost {
        let mut vhdx = Command::new(env!("CARGO_BIN_EXE_vhdx"));
        vhdx.args(command.split(' ')).arg(image).stdin(Stdio::null()).stderr(Stdio::null());
        let child = vhdx.stdout(File::create(out).unwrap()).spawn().unwrap();
        let pid = libc::pid_t::try_from(child.id()).unwrap();
        // SAFETY: `rusage` is a plain structure of numbers, for which zeros are valid values.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        let mut status = 0;
        // SAFETY: both pointers are to values of the right types that live until the call returns.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        assert_eq!(waited, pid, "{}", std::io::Error::last_os_error());
        let time = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec.unsigned_abs())
                .saturating_add(Duration::from_micros(time.tv_usec.unsigned_abs()))
        };
        Cost {
            code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
            processor: time(usage.ru_utime).saturating_add(time(usage.ru_stime)),
            peak: usage.ru_maxrss.unsigned_abs() << 10,
        }
    }

    /// A cell of the table: processor time, peak memory, and the exit code if it is not 0.
    fn cell(command: &str, image: &Path, out: &Path) -> String {
        let mut costs: Vec<Cost> = (0..TIMES).map(|_| run(command, image, out)).collect();
        costs.sort_by_key(|cost| cost.processor);
        let cost = costs.swap_remove(TIMES / 2);
        let seconds = cost.processor.as_secs_f64();
        let time = if seconds < 0.01 { "< 0.01 s".to_owned() } else { format!("{seconds:.2} s") };
        let code = match cost.code {
            Some(0) => String::new(),
            Some(code) => format!(" ({code})"),
            None => " (killed)".to_owned(),
        };
        format!("{time}, {} MiB{code}", cost.peak >> 20)
    }

    pub(crate) fn print_table() {
        println!("| input | {} |", COMMANDS.map(|command| format!("`{command}`")).join(" | "));
        println!("|---|{}", "---|".repeat(COMMANDS.len()));
        for make in inputs::ALL {
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let input = make(folder.path(), Size::Large);
            let out = folder.path().join("out");
            println!("| {} | {} |", input.name, COMMANDS.map(|command| cell(command, &input.path, &out)).join(" | "));
        }
    }
}

fn main() {
    #[cfg(target_os = "linux")]
    measure::print_table();
}
