//! What ends a command early, and with which exit code (DESIGN section 5).

use std::fmt::Display;
use std::process::ExitCode;

/// Why a command ended early; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A bug here.
    Internal = 1,
    /// Arguments or configuration.
    Usage = 2,
    /// Limits that nothing can meet.
    Limits = 3,
    /// Bad data or files.
    Data = 4,
    /// Interrupted; the same command goes on.
    Interrupted = 5,
    /// The exported file computes something else than the model.
    ExportDiffers = 6,
}

/// An error with its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Display) -> Self {
        Self { kind, error: anyhow::anyhow!("{message}") }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Gives an error its exit code and says what was being done.
pub(crate) trait OrFail<T> {
    /// Fails with `kind` and the error's own words.
    fn or_fail(self, kind: Kind) -> Result<T>;

    /// Fails with `kind`, naming what the error is about first.
    fn or_fail_with(self, kind: Kind, what: impl Display) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for std::result::Result<T, E> {
    fn or_fail(self, kind: Kind) -> Result<T> {
        self.map_err(|error| Failure { kind, error: error.into() })
    }

    fn or_fail_with(self, kind: Kind, what: impl Display) -> Result<T> {
        self.map_err(|error| Failure { kind, error: error.into().context(what.to_string()) })
    }
}
