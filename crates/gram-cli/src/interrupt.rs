//! Ctrl-C and SIGTERM: the first asks to stop and keeps what is done, the second ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Failure, Kind, OrFail, Result};
use crate::output;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether the handler is installed: a search asks for the flag, and so does the measurement at its end.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Gives the flag that the handler sets, which is installed the first time.
pub(crate) fn flag() -> Result<&'static AtomicBool> {
    if INSTALLED.swap(true, Ordering::Relaxed) {
        return Ok(&INTERRUPTED);
    }
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(Kind::Interrupted as i32);
        }
        // On a terminal a progress bar may stand on the line.
        let start = if output::is_terminal() { "\n" } else { "" };
        output::note(format_args!("{start}stopping; press Ctrl-C again to stop at once"));
    })
    .or_fail_with(Kind::Internal, "catching Ctrl-C")?;
    Ok(&INTERRUPTED)
}

/// What an interrupted command ends with.
pub(crate) fn failure(kept: &str) -> Failure {
    Failure::new(Kind::Interrupted, format!("interrupted; {kept}; run the same command to go on"))
}
