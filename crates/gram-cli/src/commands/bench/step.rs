//! `gram bench step NET`: training steps on request, in the lines that other frameworks' benchmarks speak too.

use std::io::BufRead;
use std::time::Instant;

use gram_ir::{Network, Tensor};
use gram_kernels::IsaKind;
use gram_train::{Optimizer, TrainConfig, TrainError, Trainer};

use super::chosen;
use crate::args::StepArgs;
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::{output, source};

const LEARNING_RATE: f64 = 0.05;
/// Of images, labels and first weights.
const SEED: u64 = 0;
/// Steps before `ready`, in which memory is touched for the first time.
const WARM_UP: usize = 2;
/// Larger networks are refused before their tensors are made.
const MAX_PARAMS: u64 = 100_000_000;

pub(crate) fn run(args: &StepArgs) -> Result<()> {
    let isa = chosen(args.isa)?;
    let design = source::load(&args.net, None, None)?;
    let network = design.lower().or_fail_with(Kind::Data, &args.net)?;
    let params = network.params().0;
    if params > MAX_PARAMS {
        let message = format!("{}: {params} parameters are more than the {MAX_PARAMS} that are measured", args.net);
        return Err(Failure::new(Kind::Data, message));
    }
    let mut contender = Contender::new(&network, args, isa).or_fail_with(Kind::Data, &args.net)?;
    for _ in 0..WARM_UP {
        contender.step().or_fail_with(Kind::Data, &args.net)?;
    }
    say(format_args!("ready gram-{isa} params {params}"))?;
    for line in std::io::stdin().lock().lines() {
        let line = line.or_fail_with(Kind::Data, "standard input")?;
        let Some(n_steps) = request(&line)? else { break };
        let report = contender.steps(n_steps).or_fail_with(Kind::Data, &args.net)?;
        say(report)?;
    }
    Ok(())
}

/// Steps that a line asks for; none: it asks to end.
fn request(line: &str) -> Result<Option<u32>> {
    let mut words = line.split_whitespace();
    if words.next() != Some("go") {
        return Ok(None);
    }
    let n_steps = words.next().and_then(|word| word.parse().ok());
    let quoted = || line.chars().take(40).collect::<String>();
    let wrong = || Failure::new(Kind::Data, format!("standard input: `{}` is not `go` and a count", quoted()));
    n_steps.map(Some).ok_or_else(wrong)
}

/// A line that the other side gets at once.
fn say(line: impl std::fmt::Display) -> Result<()> {
    output::line(line);
    output::finish()
}

struct Contender {
    trainer: Trainer,
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

impl Contender {
    fn new(network: &Network, args: &StepArgs, isa: IsaKind) -> std::result::Result<Self, TrainError> {
        // As torch's SGD, but for the weight decay, which norms and biases do not get here.
        let config = TrainConfig {
            optimizer: Optimizer::Sgd { momentum: 0.9, nesterov: false },
            weight_decay: 5e-4,
            label_smoothing: 0.0,
            ..TrainConfig::default()
        };
        let trainer = Trainer::with_isa(network, &config, SEED, Some(args.threads), args.batch, Some(isa))?;
        let (input, classes) = (network.input_shape(), network.output_shape().c);
        // Uniform with a variance of 1.
        let pixels = Tensor::arbitrary(&[args.batch, input.c, input.h, input.w], SEED).to_f32();
        let pixels = pixels.into_iter().map(|x| x * 3f32.sqrt()).collect();
        let labels = Tensor::arbitrary(&[args.batch], SEED + 1);
        let label = |x: &f64| ((x + 1.0) / 2.0 * classes as f64) as u32;
        Ok(Self { trainer, pixels, labels: labels.data().iter().map(label).collect() })
    }

    /// One step; its loss.
    fn step(&mut self) -> std::result::Result<f64, TrainError> {
        Ok(self.trainer.step(&self.pixels, &self.labels, LEARNING_RATE)?.loss)
    }

    /// `t MS... rss MIB loss L`.
    fn steps(&mut self, n: u32) -> std::result::Result<String, TrainError> {
        let (mut line, mut loss) = ("t".to_owned(), 0.0);
        for _ in 0..n {
            let start = Instant::now();
            loss = self.step()?;
            line += &format!(" {:.3}", start.elapsed().as_secs_f64() * 1e3);
        }
        let loss = if loss.is_nan() { "nan".into() } else { format!("{loss:.4}") };
        Ok(format!("{line} rss {} loss {loss}", peak_rss_mib().unwrap_or(0)))
    }
}

/// The largest resident memory of this process so far, where the system tells.
fn peak_rss_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib: u64 =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        assert_eq!(request("go 3").unwrap(), Some(3));
        assert_eq!(request("  go 0 ").unwrap(), Some(0));
        assert_eq!(request("").unwrap(), None);
        assert_eq!(request("going 3").unwrap(), None);
        for line in ["go", "go x", "go -1", "go 99999999999", "go 1.5"] {
            let failure = request(line).unwrap_err();
            assert_eq!(failure.kind, Kind::Data);
            assert!(failure.error.to_string().contains(line));
        }
    }

    #[test]
    fn memory_is_told_where_the_system_does() {
        let expected = cfg!(target_os = "linux");
        assert_eq!(peak_rss_mib().is_some(), expected);
        assert!(!expected || peak_rss_mib() > Some(0));
    }
}
