use super::*;

const CLASSES: usize = 4;
const LABELS: [u32; 3] = [2, 0, 3];

fn logits() -> Vec<f64> {
    gram_ir::Tensor::arbitrary(&[3, CLASSES], 5).data().iter().map(|x| 3.0 * x).collect()
}

fn mixed(share: f64) -> Targets<'static> {
    Targets { mix: Some(Mix { labels: &[1, 0, 2], share }), ..Targets::of(&LABELS, 0.1) }
}

/// `softmax`, written as it is defined.
fn softmax(row: &[f64], temperature: f64) -> Vec<f64> {
    let exp: Vec<f64> = row.iter().map(|x| (x / temperature).exp()).collect();
    exp.iter().map(|x| x / exp.iter().sum::<f64>()).collect()
}

/// Mean cross-entropy of unmixed targets, as it is defined.
fn plain(labels: &[u32], smoothing: f64) -> f64 {
    let mut sum = 0.0;
    for (row, &label) in logits().chunks(CLASSES).zip(labels) {
        for (class, p) in softmax(row, 1.0).into_iter().enumerate() {
            let hard = if class == label as usize { 1.0 } else { 0.0 };
            sum -= ((1.0 - smoothing) * hard + smoothing / CLASSES as f64) * p.ln();
        }
    }
    sum / labels.len() as f64
}

/// Holds the gradient against differences of the loss.
#[track_caller]
fn check_gradient(targets: &Targets<'_>) {
    let (at, step) = (logits(), 1e-6);
    let gradient = targets.backward(&at, 0.7);
    for i in 0..at.len() {
        let moved = |by: f64| {
            let mut at = at.clone();
            at[i] += by;
            targets.mean(&at)
        };
        let expected = 0.7 * (moved(step) - moved(-step)) / (2.0 * step);
        assert!((gradient[i] - expected).abs() < 1e-8, "{i}: {} instead of {expected}", gradient[i]);
    }
}

#[test]
fn the_loss_of_a_mixture_is_the_mixture_of_the_losses() {
    for share in [0.0, 0.3, 0.5, 1.0] {
        let expected = share * plain(&LABELS, 0.1) + (1.0 - share) * plain(&[1, 0, 2], 0.1);
        let got = mixed(share).mean(&logits());
        assert!((got - expected).abs() < 1e-12, "{share}: {got} instead of {expected}");
    }
}

#[test]
fn gradients_are_those_of_the_loss() {
    check_gradient(&Targets::of(&LABELS, 0.0));
    check_gradient(&Targets::of(&LABELS, 0.1));
    check_gradient(&mixed(0.3));
    check_gradient(&mixed(1.0));
}

#[test]
fn a_mixture_with_nothing_mixed_in_has_the_same_bits() {
    let (plain, at) = (Targets::of(&LABELS, 0.1), logits());
    assert_eq!(mixed(1.0).mean(&at), plain.mean(&at));
    assert_eq!(mixed(1.0).backward(&at, 1.0), plain.backward(&at, 1.0));
}

#[test]
fn targets_sum_to_1() {
    for targets in [Targets::of(&LABELS, 0.2), mixed(0.3), mixed(0.0)] {
        for image in 0..LABELS.len() {
            let sum: f64 = (0..CLASSES).map(|class| targets.target(image, class, CLASSES)).sum();
            assert!((sum - 1.0).abs() < 1e-15, "{sum}");
        }
    }
}

/// A teacher's scores for the three images.
const TEACHER: [f32; 3 * CLASSES] = [1.0, -2.0, 3.0, 0.5, 2.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 4.0];

fn taught(weight: f64, temperature: f64, mix: Option<Mix<'static>>) -> Targets<'static> {
    let distillation = Distillation { weight, temperature };
    Targets { mix, teacher: Some(Taught { logits: &TEACHER, distillation }), ..Targets::of(&LABELS, 0.1) }
}

#[test]
fn a_teacher_adds_its_divergence() {
    for temperature in [0.5, 1.0, 2.0, 8.0] {
        let mut divergence = 0.0;
        for (row, teacher) in logits().chunks(CLASSES).zip(TEACHER.chunks(CLASSES)) {
            let teacher: Vec<f64> = teacher.iter().map(|&x| f64::from(x)).collect();
            let (own, teacher) = (softmax(row, temperature), softmax(&teacher, temperature));
            divergence += own.iter().zip(&teacher).map(|(q, p)| p * (p / q).ln()).sum::<f64>() / 3.0;
        }
        for weight in [0.0, 0.3, 1.0] {
            let expected = (1.0 - weight) * plain(&LABELS, 0.1) + weight * temperature * temperature * divergence;
            let got = taught(weight, temperature, None).mean(&logits());
            assert!((got - expected).abs() < 1e-12, "{weight} {temperature}: {got} instead of {expected}");
        }
    }
}

#[test]
fn gradients_with_a_teacher_are_those_of_the_loss() {
    for (weight, temperature) in [(0.3, 1.0), (0.5, 2.0), (1.0, 8.0), (0.0, 2.0)] {
        check_gradient(&taught(weight, temperature, None));
        check_gradient(&taught(weight, temperature, Some(Mix { labels: &[1, 0, 2], share: 0.3 })));
    }
}

#[test]
fn a_teacher_of_no_weight_changes_no_bit() {
    let (plain, at) = (Targets::of(&LABELS, 0.1), logits());
    assert_eq!(taught(0.0, 2.0, None).mean(&at), plain.mean(&at));
    assert_eq!(taught(0.0, 2.0, None).backward(&at, 1.0), plain.backward(&at, 1.0));
}

#[test]
fn one_that_agrees_with_its_teacher_learns_nothing_more() {
    let targets = taught(1.0, 2.0, None);
    assert_eq!(targets.mean(&TEACHER), 0.0);
    assert_eq!(targets.backward(&TEACHER, 1.0), [0.0; 3 * CLASSES]);
}

#[test]
fn what_does_not_fit_is_refused() {
    mixed(0.3).check(CLASSES).unwrap();
    let refused = |targets: Targets<'_>, reason: &str| {
        let error = targets.check(CLASSES).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    let mix = |labels, share| Targets { mix: Some(Mix { labels, share }), ..Targets::of(&LABELS, 0.0) };
    refused(Targets::of(&[4], 0.0), "label 4");
    refused(Targets::of(&[0], 1.0), "smoothing is 1");
    refused(mix(&[0, 1, 7], 0.5), "label 7");
    refused(mix(&[0, 1], 0.5), "mix.labels is 2");
    refused(mix(&[0, 1, 1], 1.5), "mix.share is 1.5");
    refused(mix(&[0, 1, 1], f64::NAN), "mix.share is NaN");
    refused(taught(1.5, 2.0, None), "distillation.weight is 1.5");
    let short = Taught { logits: &TEACHER[1..], distillation: Distillation::default() };
    refused(Targets { teacher: Some(short), ..Targets::of(&LABELS, 0.0) }, "teacher.logits is 11");
}
