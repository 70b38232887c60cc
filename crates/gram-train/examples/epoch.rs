use gram_data::*;
use gram_ir::*;
use gram_train::*;
use std::time::Instant;
fn arch(nodes: u16, ch: [usize; 2], density: u64) -> Network {
    let ops = [CellOp::Sep3x3, CellOp::Conv1x1];
    let mut cell = Cell::new();
    let mut s = 12345u64;
    for i in 1..=nodes {
        cell.add_node(CellNodeId(i), ops[i as usize % 2]).unwrap();
        let mut any = false;
        for j in 0..i {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            if (s >> 33) % 100 < density {
                cell.add_edge(CellNodeId(j), CellNodeId(i)).unwrap();
                any = true;
            }
        }
        if !any {
            cell.add_edge(CellNodeId(i - 1), CellNodeId(i)).unwrap();
        }
    }
    let output = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };
    let stage = |d, c| Stage { cell: cell.clone(), repeats: 1, node_channels: c, downsample: d, output };
    Architecture {
        name: "x".into(),
        input: gram_ir::Shape::chw(1, 8, 8),
        num_classes: 10,
        activation: Activation::Relu,
        stem: vec![StemLayer::Conv { channels: 16, kernel: 3, stride: 1 }],
        stages: vec![stage(Downsample::None, ch[0]), stage(Downsample::Maxpool2, ch[1])],
        head: Head { conv: None },
    }
    .lower()
    .unwrap()
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let threads: usize = args[1].parse().unwrap();
    let lr: f64 = args.get(2).map_or(0.1, |s| s.parse().unwrap());
    let epochs: usize = args.get(3).map_or(4, |s| s.parse().unwrap());
    let ema: f64 = args.get(4).map_or(0.0, |s| s.parse().unwrap());
    let network = arch(7, [8, 16], 60);
    println!("{:?} nodes {}", network.cost(), network.nodes().len());
    let digits = open("optdigits", &LoadOptions::default()).unwrap();
    let splits = split(&digits, &SplitConfig { validation_per_class: Some(20), ..Default::default() }).unwrap();
    let proxy = proxy_subset(&splits.train, 130, 7);
    let norm = Normalisation::of(&splits.train);
    let data = TrainData { train: &proxy, validation: Some(&splits.validation), normalisation: &norm };
    let config = TrainConfig {
        epochs,
        learning_rate: lr,
        ema_decay: (ema > 0.0).then_some(ema),
        augmentation: Augmentation { pad: 1, flip: false },
        ..Default::default()
    };
    let mut t = Instant::now();
    let mut obs = |r: &EpochReport| {
        println!(
            "{} loss {:.4} top1 {:.3} val {:?} {:.3}s",
            r.epoch,
            r.train_loss,
            r.train_top1,
            r.validation_top1,
            t.elapsed().as_secs_f64()
        );
        t = Instant::now();
        Control::Continue
    };
    let mut o = TrainOptions::new(&mut obs);
    o.n_threads = Some(threads);
    let out = train(&network, &data, &config, 3, o).unwrap();
    if let Outcome::Trained(t) = out {
        println!("n {} digest {}", proxy.len(), weights_digest(&t.weights));
    }
}
