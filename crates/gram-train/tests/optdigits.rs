//! Real images: the shipped digits, a small SwiftNet, default settings.

use gram_data::{LoadOptions, Normalisation, SplitConfig};
use gram_ir::{
    Activation, Architecture, Cell, CellNodeId, CellOp, CellOutput, Downsample, Head, Shape, Stage, StemLayer,
};
use gram_train::{Control, Outcome, TrainConfig, TrainData, TrainOptions, evaluate, train};

fn architecture() -> Architecture {
    let mut cell = Cell::new();
    for (n, op) in [(1, CellOp::Conv1x1), (2, CellOp::Sep3x3), (3, CellOp::Sep3x3)] {
        cell.add_node(CellNodeId(n), op).unwrap();
        for from in 0..n {
            cell.add_edge(CellNodeId(from), CellNodeId(n)).unwrap();
        }
    }
    let output = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };
    let stage = |node_channels, downsample| Stage { cell: cell.clone(), repeats: 1, node_channels, downsample, output };
    Architecture {
        name: "digits".into(),
        input: Shape::chw(1, 8, 8),
        num_classes: 10,
        activation: Activation::Relu,
        stem: vec![StemLayer::Conv { channels: 16, kernel: 3, stride: 1 }],
        stages: vec![stage(16, Downsample::None), stage(32, Downsample::Maxpool2)],
        head: Head::default(),
    }
}

#[test]
fn digits_are_learnt_in_a_few_epochs() {
    let digits = gram_data::open("optdigits", &LoadOptions::default()).unwrap();
    let splits =
        gram_data::split(&digits, &SplitConfig { validation_per_class: Some(30), ..SplitConfig::default() }).unwrap();
    let normalisation = Normalisation::of(&splits.train);
    let data = TrainData {
        train: &splits.train,
        validation: Some(&splits.validation),
        normalisation: &normalisation,
        teacher: None,
    };
    let config = TrainConfig { epochs: 6, ema_decay: Some(0.97), ..TrainConfig::default() };
    let network = architecture().lower().unwrap();
    let outcome = train(&network, &data, &config, 1, TrainOptions::new(&mut |_| Control::Continue)).unwrap();
    let Outcome::Trained(trained) = outcome else { panic!("{outcome:?}") };
    let evaluation = evaluate(&network, &trained.weights, &splits.validation, &normalisation, 64).unwrap();
    assert_eq!(Some(evaluation.top1), trained.history[5].validation_top1);
    assert!(evaluation.top1 > 0.95 && evaluation.top5 > evaluation.top1 - 1e-12, "{evaluation:?}");
    let losses: Vec<f64> = trained.history.iter().map(|report| report.train_loss).collect();
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
}
