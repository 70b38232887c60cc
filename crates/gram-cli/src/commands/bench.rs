//! `gram bench …`.

mod peak;
mod proxy;
mod regret;
mod step;
pub(crate) mod tabular;

use gram_kernels::IsaKind;

use crate::args::{BenchCommand, IsaArg};
use crate::failure::{Failure, Kind, Result};

pub(crate) fn run(command: &BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Step(args) => step::run(args),
        BenchCommand::Peak(args) => peak::run(args),
        BenchCommand::Tabular(args) => tabular::run(args),
        BenchCommand::Proxy(args) => proxy::run(args),
    }
}

/// The instruction set that was asked for, or the best one.
fn chosen(isa: Option<IsaArg>) -> Result<IsaKind> {
    let kind = match isa {
        None => IsaKind::best(),
        Some(IsaArg::Avx512) => IsaKind::Avx512,
        Some(IsaArg::Avx2) => IsaKind::Avx2,
        Some(IsaArg::Portable) => IsaKind::Portable,
    };
    if kind.is_available() {
        return Ok(kind);
    }
    Err(Failure::new(Kind::Usage, format!("this machine has no {kind}; the best it has is {}", IsaKind::best())))
}
