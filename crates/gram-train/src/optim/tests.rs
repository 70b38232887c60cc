//! O1 a flat optimiser does what one optimiser per tensor does, bit for bit; O2 elements outside of the segments and their memories stay
//! as they are; O3 a clipped gradient has at most the norm that is asked for, and the same direction.

use proptest::prelude::*;

use super::*;

const SGD: Optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: false };

fn whole(len: usize) -> Vec<Segment> {
    vec![Segment { range: 0..len, decay: true }]
}

/// An optimiser of one weight that decays.
fn single(kind: Optimizer, weight_decay: f64) -> OptimizerState {
    OptimizerState::new(kind, weight_decay, whole(1), 1)
}

#[track_caller]
fn near(got: f32, expected: f64) {
    assert!((f64::from(got) - expected).abs() < 1e-6, "{got} instead of {expected}");
}

#[test]
fn sgd_by_hand() {
    let mut weights = [1.0];
    let mut plain = single(SGD, 0.5);
    plain.step(&mut weights, &[1.0], 0.1);
    // g = 1 + 0.5·1 = 1.5; m = 1.5; w = 1 - 0.15.
    assert_eq!((weights[0], plain.first[0]), (0.85, 1.5));
    let mut nesterov = single(Optimizer::Sgd { momentum: 0.9, nesterov: true }, 0.0);
    nesterov.first[0] = 1.5;
    nesterov.step(&mut weights, &[1.0], 0.1);
    // m = 0.9·1.5 + 1 = 2.35; step 1 + 0.9·2.35 = 3.115; w = 0.85 - 0.3115.
    near(weights[0], 0.5385);
}

#[test]
fn sgd_without_momentum_remembers_nothing() {
    let mut weights = [1.0];
    for nesterov in [false, true] {
        weights = [1.0];
        let mut sgd = single(Optimizer::Sgd { momentum: 0.0, nesterov }, 0.5);
        sgd.step(&mut weights, &[1.0], 0.1);
        assert!(sgd.first.is_empty() && sgd.second.is_empty());
        // 1 - 0.1·(1 + 0.5).
        near(weights[0], 0.85);
    }
    let mut remembering = single(SGD, 0.5);
    remembering.step(&mut weights, &[0.0], 0.1);
    // Only the decay: 0.85·(1 - 0.05).
    near(weights[0], 0.8075);
}

#[test]
fn adamw_by_hand() {
    let mut weights = [1.0];
    let kind = Optimizer::Adamw { beta1: 0.9, beta2: 0.99, epsilon: 0.0 };
    let mut adamw = single(kind, 0.5);
    adamw.step(&mut weights, &[2.0], 0.1);
    // Corrected mean 2 and mean square 4: the step is lr·2/2; the weight first shrinks to 1 - 0.1·0.5.
    near(weights[0], 0.85);
    near(adamw.first[0], 0.2);
    near(adamw.second[0], 0.04);
    adamw.weight_decay = 0.0;
    adamw.step(&mut weights, &[0.0], 0.1);
    // mean 0.18/(1 - 0.81), square 0.0396/(1 - 0.9801): 0.947368/√1.989950 = 0.671574.
    near(weights[0], 0.85 - 0.067_157_4);
}

#[test]
fn rmsprop_by_hand() {
    let mut weights = [1.0];
    let mut rmsprop = single(Optimizer::Rmsprop { alpha: 0.75, momentum: 0.5, epsilon: 1.0 }, 1.0);
    rmsprop.step(&mut weights, &[3.0], 0.1);
    // g = 3 + 1·1 = 4; square = 0.25·16 = 4; m = 4/(2 + 1); w = 1 - 0.1·4/3.
    near(rmsprop.second[0], 4.0);
    near(rmsprop.first[0], 4.0 / 3.0);
    near(weights[0], 1.0 - 0.4 / 3.0);
    rmsprop.weight_decay = 0.0;
    rmsprop.step(&mut weights, &[2.0], 0.1);
    // square = 0.75·4 + 0.25·4 = 4; m = 0.5·4/3 + 2/3 = 4/3.
    near(weights[0], 1.0 - 0.8 / 3.0);
    // Without momentum the step is lr·g/(√square + ε).
    let mut plain = single(Optimizer::Rmsprop { alpha: 0.75, momentum: 0.0, epsilon: 1.0 }, 0.0);
    plain.step(&mut weights, &[4.0], 0.3);
    assert!(plain.first.is_empty());
    near(weights[0], 1.0 - 0.8 / 3.0 - 0.4);
}

#[test]
fn only_segments_that_decay_do() {
    let segments = vec![Segment { range: 1..3, decay: true }, Segment { range: 3..4, decay: false }];
    for kind in [SGD, Optimizer::adamw(), Optimizer::rmsprop()] {
        let mut values = [1.0f32; 5];
        // Gradients of zero: only the decay moves anything.
        OptimizerState::new(kind, 0.5, segments.clone(), 5).step(&mut values, &[0.0; 5], 0.1);
        assert!(values[1] < 1.0 && values[1] == values[2], "{values:?}");
        assert_eq!([values[0], values[3], values[4]], [1.0; 3]);
    }
}

#[test]
fn memories_that_overflow_are_noticed() {
    let mut weights = [1.0];
    let mut adamw = single(Optimizer::adamw(), 0.0);
    adamw.step(&mut weights, &[1e30], 0.1);
    // The squared gradient is infinite, the weight is not.
    assert!(all_finite(&weights) && !all_finite(&adamw.second));
    let mut many = vec![0.0f32; 3000];
    assert!(all_finite(&many));
    many[2999] = f32::NAN;
    assert!(!all_finite(&many));
}

#[test]
fn gradients_are_clipped_over_all_segments() {
    let segments = [Segment { range: 0..1, decay: true }, Segment { range: 2..3, decay: false }];
    let mut gradient = [3.0, 100.0, 4.0];
    assert_eq!(clip(&mut gradient, &segments, 5.0), 5.0);
    assert_eq!(gradient, [3.0, 100.0, 4.0]);
    assert_eq!(clip(&mut gradient, &segments, 2.5), 5.0);
    assert_eq!(gradient, [1.5, 100.0, 2.0]);
    let mut broken = [f32::INFINITY, 0.0, 1.0];
    assert_eq!(clip(&mut broken, &segments, 2.5), f64::INFINITY);
    assert_eq!(broken, [f32::INFINITY, 0.0, 1.0]);
}

#[test]
fn averages_start_quickly() {
    let mut ema = Ema::new(0.15, &[0.0, 1.0]);
    ema.update(&[1.0, 1.0]);
    // First decay 1/10: 0.1·0 + 0.9·1.
    near(ema.values[0], 0.9);
    ema.update(&[2.0, 1.0]);
    // Second decay min(0.15, 2/11): 0.15·0.9 + 0.85·2.
    near(ema.values[0], 1.835);
    near(ema.values[1], 1.0);
    assert_eq!(ema.n_updates, 2);
}

fn arb_kind() -> impl Strategy<Value = Optimizer> {
    let momentum = || prop_oneof![Just(0.0), 0.1..0.99f64];
    prop_oneof![
        (momentum(), any::<bool>()).prop_map(|(momentum, nesterov)| Optimizer::Sgd { momentum, nesterov }),
        (0.0..0.99f64, 0.0..0.999f64).prop_map(|(beta1, beta2)| Optimizer::Adamw { beta1, beta2, epsilon: 1e-8 }),
        (0.0..0.99f64, momentum()).prop_map(|(alpha, momentum)| Optimizer::Rmsprop { alpha, momentum, epsilon: 1e-3 }),
    ]
}

/// Lengths of tensors, whether each is trained and decays.
fn arb_layout() -> impl Strategy<Value = Vec<(usize, bool, bool)>> {
    proptest::collection::vec((1..40usize, any::<bool>(), any::<bool>()), 1..8)
}

fn numbers(len: usize, seed: u64) -> Vec<f32> {
    gram_ir::Tensor::arbitrary(&[len], seed).data().iter().map(|&x| x as f32).collect()
}

/// Segments of the trained tensors, and the length of the buffer.
fn segments(layout: &[(usize, bool, bool)]) -> (Vec<Segment>, usize) {
    let mut at = 0;
    let mut segments = Vec::new();
    for &(len, trained, decay) in layout {
        if trained {
            segments.push(Segment { range: at..at + len, decay });
        }
        at += len;
    }
    (segments, at)
}

proptest! {
    #[test]
    fn flat_is_per_tensor(kind in arb_kind(), layout in arb_layout(), seed in any::<u64>()) {
        let (segments, len) = segments(&layout);
        let start = numbers(len, seed);
        let mut flat = start.clone();
        let mut optimizer = OptimizerState::new(kind, 0.01, segments.clone(), len);
        let gradients: Vec<Vec<f32>> = (1..4u64).map(|i| numbers(len, seed.wrapping_add(i))).collect();
        gradients.iter().for_each(|gradient| optimizer.step(&mut flat, gradient, 0.1));
        let mut expected = start.clone();
        for Segment { range, decay } in &segments {
            let own = vec![Segment { range: 0..range.len(), decay: *decay }];
            let mut alone = OptimizerState::new(kind, 0.01, own, range.len());
            let values = &mut expected[range.clone()];
            gradients.iter().for_each(|gradient| alone.step(values, &gradient[range.clone()], 0.1));
            for (all, own) in [(&optimizer.first, &alone.first), (&optimizer.second, &alone.second)] {
                prop_assert_eq!(all.get(range.clone()).unwrap_or_default(), own.as_slice()); // O1
            }
        }
        // Elements outside of the segments are those of `start`.
        prop_assert_eq!(&flat, &expected); // O1, O2
        for memory in [&optimizer.first, &optimizer.second].into_iter().filter(|memory| !memory.is_empty()) {
            let outside = (0..len).filter(|i| !segments.iter().any(|segment| segment.range.contains(i)));
            prop_assert!(outside.into_iter().all(|i| memory[i] == 0.0)); // O2
        }
    }

    #[test]
    fn clipping_keeps_the_direction(layout in arb_layout(), seed in any::<u64>(), max_norm in 0.01..10.0f64) {
        let (segments, len) = segments(&layout);
        let before = numbers(len, seed);
        let mut after = before.clone();
        let norm = clip(&mut after, &segments, max_norm);
        let mut plain = 0.0;
        for i in segments.iter().flat_map(|segment| segment.range.clone()) {
            plain += f64::from(before[i]).powi(2);
        }
        prop_assert!((norm - plain.sqrt()).abs() <= 1e-9 * (1.0 + norm));
        let now = clip(&mut after.clone(), &segments, max_norm);
        prop_assert!(now <= max_norm * (1.0 + 1e-6) && now <= norm * (1.0 + 1e-6)); // O3
        let factor = if norm > max_norm { (max_norm / norm) as f32 } else { 1.0 };
        for (i, (&before, &after)) in before.iter().zip(&after).enumerate() {
            let trained = segments.iter().any(|segment| segment.range.contains(&i));
            prop_assert_eq!(after, if trained { before * factor } else { before }); // O3
        }
    }
}
