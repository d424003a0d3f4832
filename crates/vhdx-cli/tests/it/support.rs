//! Support for the tests of the command.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use vhdx_testkit::support as kit;
pub(crate) use vhdx_testkit::support::{hex, skip, temp_dir};

use crate::schema;

/// The folder of the project.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The command with these arguments, in an environment without settings for colours or terminal width.
pub(crate) fn vhdx<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhdx"));
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"] {
        command.env_remove(name);
    }
    // Runs at different times give the same documents.
    command.env("SOURCE_DATE_EPOCH", "1709251199").args(args);
    command
}

/// What a run of a program gave. Its JSON is validated against the schema of the command.
#[derive(Debug)]
pub(crate) struct Ran {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// All of its standard output, unless that went elsewhere.
    pub(crate) out: Vec<u8>,
    /// All of its standard error.
    pub(crate) err: String,
    /// The schema, where the arguments are known.
    schema: Option<&'static str>,
}

impl Ran {
    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.out.clone()).unwrap()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert!(!self.out.is_empty(), "no JSON, but: {}", self.err);
        let value = serde_json::from_slice(&self.out).unwrap();
        schema::assert_valid(self.schema, &value);
        value
    }

    /// The same run, if it was a success.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert!(self.status.success(), "{}: {}", self.status, self.err);
        self
    }
}

impl From<kit::Ran> for Ran {
    fn from(kit::Ran { status, out, err }: kit::Ran) -> Self {
        Self { status, out, err, schema: None }
    }
}

#[cfg(target_os = "linux")]
impl From<crate::traced::Ended> for Ran {
    fn from(ended: crate::traced::Ended) -> Self {
        kit::Ran::from(ended).into()
    }
}

/// Runs a program without input and to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Ran {
    run_to(command, Stdio::piped())
}

/// The same, with another standard output.
#[track_caller]
pub(crate) fn run_to(command: &mut Command, out: Stdio) -> Ran {
    let ran = kit::run_to(command, out).into();
    Ran { schema: schema::of_command(command), ..ran }
}

/// Waits for the end of a program, reading what it writes meanwhile.
#[track_caller]
pub(crate) fn wait(child: Child) -> Ran {
    kit::wait(child).into()
}

/// A loss map that the command has written.
#[track_caller]
pub(crate) fn loss_map(path: &Path) -> Value {
    let map = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    schema::assert_valid(Some("loss-map"), &map);
    map
}
