//! `gram completions SHELL`.

use clap::CommandFactory;

use crate::args::Arguments;
use crate::failure::Result;
use crate::output;

pub(crate) fn run(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "gram", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}
