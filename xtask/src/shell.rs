//! Running commands: printed as a person would type them, stopped at the first that fails.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// A command that failed, with its exit code, which becomes ours.
#[derive(Debug)]
struct Failed {
    line: String,
    code: u8,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ended with exit code {}", self.line, self.code)
    }
}

impl std::error::Error for Failed {}

/// A wrong use of xtask; exit code 2.
pub(crate) fn usage(message: impl fmt::Display) -> anyhow::Error {
    anyhow::Error::new(Failed { line: "cargo xtask".into(), code: 2 }).context(message.to_string())
}

/// The exit code that an error asks for; 1 where it says nothing.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Failed>().map_or(1, |failed| failed.code)
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Runs a command in the workspace's folder with our own output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    execute(program, arguments, &[], false).map(drop)
}

/// As [`run`], with environment variables set.
pub(crate) fn run_with(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    execute(program, arguments, variables, false).map(drop)
}

/// As [`run`], and gives what the command wrote to stdout, which is not shown.
pub(crate) fn capture(program: &str, arguments: &[&str]) -> Result<String> {
    execute(program, arguments, &[], true)
}

fn execute(program: &str, arguments: &[&str], variables: &[(&str, &str)], captured: bool) -> Result<String> {
    let shown = Path::new(program).file_name().map_or(program.into(), |name| name.to_string_lossy());
    let line = std::iter::once(shown.as_ref()).chain(arguments.iter().copied()).collect::<Vec<_>>().join(" ");
    let settings: String = variables.iter().map(|(key, value)| format!("{key}={value:?} ")).collect();
    eprintln!("\n$ {settings}{line}");
    let mut command = Command::new(program);
    command.args(arguments).envs(variables.iter().copied()).current_dir(root()).stdin(Stdio::null());
    if captured {
        command.stdout(Stdio::piped());
    }
    let output = command
        .spawn()
        .and_then(|child| child.wait_with_output())
        .with_context(|| format!("cannot run `{program}`"))?;
    if !output.status.success() {
        let code = output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        return Err(Failed { line, code }.into());
    }
    String::from_utf8(output.stdout).context("the command wrote something else than text")
}
