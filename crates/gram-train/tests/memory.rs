//! What a training is said to take of memory, held against the process's largest resident memory.
//!
//! M1 no training takes more; M2 it takes nearly as much. Alone in its binary: tests beside it would be counted too.
#![cfg(target_os = "linux")]

use std::io::Write;

use gram_data::{ImageSet, ImageShape, Normalisation};
use gram_ir::{Network, Shape, Weights, preset};
use gram_train::{
    Control, Distillation, Optimizer, Outcome, Teacher, TrainConfig, TrainData, TrainOptions, teacher_bytes, train,
    training_bytes,
};

/// A field of `/proc/self/status`, in bytes.
fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().unwrap() << 10
}

/// Name of a preset, its training, and threads.
fn cases() -> [(&'static str, TrainConfig, usize); 5] {
    let config = |optimizer, batch_size| TrainConfig {
        optimizer,
        batch_size,
        epochs: 2,
        learning_rate: 1e-3,
        ema_decay: Some(0.9),
        ..TrainConfig::default()
    };
    let taught = TrainConfig { distillation: Some(Distillation::default()), ..config(Optimizer::sgd(), 16) };
    [
        ("mobilenet-v2-0.35", taught, 2),
        ("mobilenet-v2-0.35", config(Optimizer::sgd(), 16), 1),
        ("mobilenet-v2-0.5", config(Optimizer::adamw(), 64), 2),
        ("mobilenet-v2-1.0", config(Optimizer::rmsprop(), 128), 1),
        ("swiftnet-vww", TrainConfig { ema_decay: None, mixup: Some(0.2), ..config(Optimizer::sgd(), 64) }, 2),
    ]
}

fn network(name: &str) -> Network {
    preset(name, Some(Shape::chw(3, 32, 32)), Some(10)).unwrap().lower().unwrap()
}

/// What [`cases`] with a teacher learn from.
const TEACHER: &str = "mobilenet-v2-1.0";

/// Each training has a process of its own: what an earlier one leaves to the allocator would not be seen to grow.
#[test]
fn trainings_take_what_they_are_said_to_and_no_more() {
    for (i, (name, config, n_threads)) in cases().iter().enumerate() {
        let mut said = training_bytes(&network(name), config, *n_threads) as f64;
        if config.distillation.is_some() {
            said += teacher_bytes(&network(TEACHER), config, *n_threads) as f64;
        }
        let this = std::env::current_exe().unwrap();
        let arguments = ["--exact", "one_training", "--ignored", "--nocapture"];
        let output = std::process::Command::new(this).args(arguments).env("GRAM_TEST_CASE", i.to_string()).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let grown = text.lines().find_map(|line| line.split_once("grown ")).expect(&text).1;
        let share = grown.parse::<f64>().unwrap() / said;
        // A teacher's tensors in single precision are gone when the first step takes its memory, but counted beside it: with a small student
        // they would be the peak.
        let least = if config.distillation.is_some() { 0.65 } else { 0.75 };
        assert!((least..=1.0).contains(&share), "{name}: {grown} of {said} bytes");
    }
}

#[test]
#[ignore = "the other test runs it, in a process of its own"]
fn one_training() {
    let case = std::env::var("GRAM_TEST_CASE").expect("which case").parse::<usize>().unwrap();
    let (name, config, n_threads) = &cases()[case];
    let student = network(name);
    let n = 2 * config.batch_size;
    let pixels = (0..n * 3 * 32 * 32).map(|i| (i * 79 % 251) as u8).collect();
    let images = ImageSet::new(ImageShape::new(3, 32, 32), pixels, (0..n).map(|i| i as u32 % 10).collect()).unwrap();
    // Read beside the training, as a file would be; its double precision counts as the teacher's.
    let before = [status("VmRSS:"), status("RssFile:")];
    let taught = config.distillation.map(|_| {
        let network = network(TEACHER);
        let weights = Weights::arbitrary(&network, 1);
        (network, weights)
    });
    // Used to other normalisation, so that pixels are converted.
    let of_teacher = Normalisation { mean: vec![0.5; 3], std: vec![0.25; 3] };
    let teacher = taught.as_ref().map(|(network, weights)| Teacher { network, weights, normalisation: &of_teacher });
    let data =
        TrainData { train: &images, validation: Some(&images), normalisation: &Normalisation::of(&images), teacher };
    let mut observer = |_: &_| Control::Continue;
    let options = TrainOptions { n_threads: Some(*n_threads), ..TrainOptions::new(&mut observer) };
    let outcome = train(&student, &data, config, 1, options).unwrap();
    assert!(matches!(outcome, Outcome::Trained(_)));
    // The program's own pages, which are read from its file when they are first needed, are no memory of the training.
    let grown = status("VmHWM:") - before[0] - (status("RssFile:") - before[1]);
    // Not `println`: the harness may keep what that prints.
    writeln!(std::io::stdout(), "\ngrown {grown}").unwrap();
}
