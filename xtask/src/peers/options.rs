//! What is measured, and how often.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell::{root, usage};

pub(crate) struct Options {
    /// A Python that has torch.
    pub(crate) python: String,
    /// Torch's side.
    pub(crate) peer: PathBuf,
    /// Folder of the net files.
    pub(crate) nets: PathBuf,
    /// Rounds, the first of which is dropped.
    pub(crate) rounds: usize,
    /// Steps of one contender in a round.
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    pub(crate) threads: usize,
    pub(crate) output: PathBuf,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            python: std::env::var("GRAM_PEER_PYTHON").unwrap_or_else(|_| "python3".into()),
            peer: PathBuf::new(),
            nets: root().join("../shared/bench/nets"),
            rounds: 7,
            steps: 3,
            batch: 64,
            threads: 2,
            output: root().join("docs/benchmarks.md"),
        };
        let mut peer = None;
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().cloned().ok_or_else(|| usage(format!("{argument} needs a value")));
            match argument.as_str() {
                "--python" => options.python = value()?,
                "--peer" => peer = Some(PathBuf::from(value()?)),
                "--nets" => options.nets = value()?.into(),
                "--rounds" => options.rounds = count(argument, &value()?, 2)?,
                "--steps" => options.steps = count(argument, &value()?, 1)?,
                "--batch" => options.batch = count(argument, &value()?, 1)?,
                "--threads" => options.threads = count(argument, &value()?, 1)?,
                "--output" | "-o" => options.output = value()?.into(),
                other => return Err(usage(format!("`cargo xtask bench peers` does not know `{other}`"))),
            }
        }
        options.peer = peer.unwrap_or_else(|| options.nets.join("../peer_torch.py"));
        Ok(options)
    }

    /// The command without the places of files.
    pub(crate) fn command(&self) -> String {
        let Self { rounds, steps, batch, threads, .. } = self;
        format!("cargo xtask bench peers --rounds {rounds} --steps {steps} --batch {batch} --threads {threads}")
    }
}

fn count(name: &str, text: &str, least: usize) -> Result<usize> {
    let count = text.parse().ok().filter(|count| (least..=512).contains(count));
    count.ok_or_else(|| usage(format!("{name} {text}: not a number between {least} and 512")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options> {
        Options::parse(&text.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_and_their_command() {
        let options = parse("--rounds 3 --nets somewhere/nets --python p --threads 4 -o out.md").unwrap();
        assert_eq!(options.command(), "cargo xtask bench peers --rounds 3 --steps 3 --batch 64 --threads 4");
        assert_eq!(options.peer, PathBuf::from("somewhere/nets/../peer_torch.py"));
        assert_eq!((options.python.as_str(), options.output), ("p", PathBuf::from("out.md")));
    }

    #[test]
    fn wrong_options_are_refused() {
        for text in ["--rounds", "--rounds 1", "--steps x", "--batch 100000", "--frobnicate", "stray"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
