//! `gram bench peak`.

use std::sync::Barrier;
use std::thread;

use serde::Serialize;

use super::chosen;
use crate::args::PeakArgs;
use crate::failure::{Failure, Kind, Result};
use crate::output;

#[derive(Serialize)]
struct Report {
    isa: &'static str,
    threads: usize,
    /// Of all threads together, each multiply–add as two.
    gflops: f64,
}

pub(crate) fn run(args: &PeakArgs) -> Result<()> {
    let isa = chosen(args.isa)?;
    let kernels = isa.kernels().ok_or_else(|| Failure::new(Kind::Internal, format!("no kernels for {isa}")))?;
    let barrier = Barrier::new(args.threads);
    let one = || {
        barrier.wait();
        kernels.peak_gflops(args.seconds as f64)
    };
    let gflops = thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().expect("invariant: measuring does not panic")).sum()
    });
    let report = Report { isa: isa.name(), threads: args.threads, gflops };
    if args.json {
        return output::json(&report);
    }
    output::line(format_args!("{gflops:.1} GFLOP/s, {isa}, {} threads", args.threads));
    Ok(())
}
