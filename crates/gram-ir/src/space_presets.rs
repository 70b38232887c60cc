//! Search spaces that come with the project, by name.

use crate::{Activation, CellOp, CellOutput, Downsample, Head, NodeOperators, Shape, Space, StageSpace, StemLayer};

/// The names that [`space_preset`] knows.
pub const SPACE_PRESET_NAMES: [&str; 5] =
    ["swiftnet-vww", "swiftnet-imagenet", "swiftnet-cifar", "swiftnet-small", "autoshrink"];

/// A search space by name; none if there is no such name.
///
/// | name | | stages |
/// |---|---|---|
/// | `swiftnet-vww` | of the shipped SwiftNet (ALGORITHMS 1.2, 1.9, author model) | 3 of 30 nodes at 1/8, 1/16, 1/32 |
/// | `swiftnet-imagenet` | the same layout with the head of ALGORITHMS 2.2; widths \[ours\], so that children stand near the paper's 53 M MACs and 2.07 M params | 3 of 30 nodes at 1/8, 1/16, 1/32 |
/// | `swiftnet-cifar` | stem, widths and pools of the proxy task (ALGORITHMS 1.3, sibling code); projections \[ours\] | 3 of 30 nodes at 1, 1/2, 1/4 |
/// | `swiftnet-small` | images of 8x8 and 28x28 pixels \[ours\] | 2 of 8 nodes at 1, 1/2 |
/// | `autoshrink` | AutoShrink's proxy network (ALGORITHMS 1.3, 2.1, sibling code); its first pooling is 1, i.e. none | 3 of 8 nodes at 1, 1/2, 1/4 |
///
/// All deal out `conv1x1` and `sep3x3`, and allow four inputs a node, the most in the shipped SwiftNet. A space does not depend on
/// the image's size or the classes; [`space_preset_io`] says what it was made for.
pub fn space_preset(name: &str) -> Option<Space> {
    let space = match name {
        "swiftnet-vww" => Space {
            stem: vec![conv(16, 7, 4), sep(32)],
            stages: vec![
                swiftnet_stage(30, 32, 48, Downsample::Maxpool2),
                swiftnet_stage(30, 48, 80, Downsample::Maxpool2),
                swiftnet_stage(30, 64, 76, Downsample::Maxpool2),
            ],
            ..base(name, Activation::Relu6)
        },
        "swiftnet-imagenet" => Space {
            stem: vec![conv(16, 7, 4), sep(32)],
            stages: vec![
                swiftnet_stage(30, 16, 32, Downsample::Maxpool2),
                swiftnet_stage(30, 32, 64, Downsample::Maxpool2),
                swiftnet_stage(30, 128, 256, Downsample::Maxpool2),
            ],
            head: Head { conv: Some(1280) },
            ..base(name, Activation::Relu6)
        },
        "swiftnet-cifar" => Space {
            stem: vec![conv(32, 3, 1)],
            stages: vec![
                swiftnet_stage(30, 16, 32, Downsample::None),
                swiftnet_stage(30, 32, 64, Downsample::Maxpool2),
                swiftnet_stage(30, 64, 128, Downsample::Maxpool2),
            ],
            ..base(name, Activation::Relu6)
        },
        "swiftnet-small" => Space {
            stem: vec![conv(8, 3, 1)],
            stages: vec![swiftnet_stage(8, 8, 16, Downsample::None), swiftnet_stage(8, 16, 32, Downsample::Maxpool2)],
            ..base(name, Activation::Relu6)
        },
        "autoshrink" => Space {
            stem: vec![conv(32, 3, 1)],
            stages: vec![
                autoshrink_stage(16, Downsample::None),
                autoshrink_stage(32, Downsample::Maxpool2),
                autoshrink_stage(64, Downsample::Maxpool2),
            ],
            ..base(name, Activation::Relu)
        },
        _ => return None,
    };
    Some(space)
}

/// Shape of the images and number of classes that the space of that name was made for.
pub fn space_preset_io(name: &str) -> Option<(Shape, usize)> {
    match name {
        "swiftnet-vww" => Some((Shape::chw(3, 224, 224), 2)),
        "swiftnet-imagenet" => Some((Shape::chw(3, 224, 224), 1000)),
        "swiftnet-cifar" | "autoshrink" => Some((Shape::chw(3, 32, 32), 10)),
        "swiftnet-small" => Some((Shape::chw(1, 8, 8), 10)),
        _ => None,
    }
}

/// What all have in common, without stem and stages.
fn base(name: &str, activation: Activation) -> Space {
    Space {
        name: name.into(),
        activation,
        max_in_degree: 4,
        operators: vec![CellOp::Conv1x1, CellOp::Sep3x3],
        node_operators: NodeOperators::Dealt,
        image_sizes: Vec::new(),
        channel_multiple: 1,
        stem: Vec::new(),
        stages: Vec::new(),
        head: Head::default(),
    }
}

const fn conv(channels: usize, kernel: usize, stride: usize) -> StemLayer {
    StemLayer::Conv { channels, kernel, stride }
}

const fn sep(channels: usize) -> StemLayer {
    StemLayer::Sep { channels, kernel: 3, stride: 1 }
}

/// A stage with projection and added input, as in the shipped SwiftNet.
const fn swiftnet_stage(nodes: usize, channels: usize, project: usize, downsample: Downsample) -> StageSpace {
    let output = CellOutput { project: Some(project), residual: true, linear_leaves: false, activation: true };
    StageSpace::new(nodes, channels, downsample, output)
}

/// A stage that gives its leaves as they are.
const fn autoshrink_stage(channels: usize, downsample: Downsample) -> StageSpace {
    let output = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };
    StageSpace::new(8, channels, downsample, output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cell, CellNodeId, Design, preset};

    #[test]
    fn every_space_is_usable_and_readable() {
        for name in SPACE_PRESET_NAMES {
            let space = space_preset(name).unwrap();
            assert_eq!((space.name.as_str(), space.verify()), (name, Ok(())));
            let text = toml::to_string(&space).unwrap();
            assert_eq!(toml::from_str::<Space>(&text).unwrap(), space, "{text}");
            assert!(space_preset_io(name).is_some());
        }
        assert_eq!((space_preset("x"), space_preset_io("x")), (None, None));
    }

    #[test]
    fn the_toml_of_a_space() {
        let text = toml::to_string(&space_preset("swiftnet-small").unwrap()).unwrap();
        let expected = r#"name = "swiftnet-small"
activation = "relu6"
max_in_degree = 4
operators = ["conv1x1", "sep3x3"]

[[stem]]
layer = "conv"
channels = 8
kernel = 3
stride = 1

[[stages]]
nodes = 8
channels = 8
repeats = 1
downsample = "none"

[stages.output]
project = 16
residual = true
linear_leaves = false
activation = true

[[stages]]
nodes = 8
channels = 16
repeats = 1
downsample = "maxpool2"

[stages.output]
project = 32
residual = true
linear_leaves = false
activation = true

[head]
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn the_shipped_swiftnet_is_a_child_of_its_space() {
        let space = space_preset("swiftnet-vww").unwrap();
        let Ok(Design::Architecture(shipped)) = preset("swiftnet-vww", None, None) else { panic!("it is there") };
        let cells: Vec<Cell> = shipped.stages.iter().map(|stage| stage.cell.clone()).collect();
        assert_eq!(space.assemble(shipped.input, shipped.num_classes, &cells), shipped);
        for (cell, stage) in cells.iter().zip(&space.stages) {
            let fits = |(id, op): (CellNodeId, CellOp)| {
                id.index() < stage.nodes
                    && cell.predecessors(id).len() <= space.max_in_degree
                    && space.operators.contains(&op)
            };
            assert!(cell.ops().all(fits));
        }
    }

    /// Children as the ancestral sampler of ALGORITHMS 1.4 draws them: edges out of live nodes with probability 1/2 (up to 8 nodes)
    /// or `min(1/2, 1/j)`.
    fn median_child(name: &str, input: Shape, num_classes: usize) -> [u64; 2] {
        let space = space_preset(name).unwrap();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut uniform = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut child = |nodes: usize| loop {
            let mut cell = Cell::new();
            for to in (1..nodes as u16).map(CellNodeId) {
                cell.add_node(to, space.operators[usize::from(uniform() < 0.5)]).unwrap();
                let weight = if nodes <= 8 { 0.5 } else { 0.5f64.min(1.0 / f64::from(to.0)) };
                for from in cell.live().into_iter().filter(|&from| from < to) {
                    if uniform() < weight && cell.predecessors(to).len() < space.max_in_degree {
                        cell.add_edge(from, to).unwrap();
                    }
                }
            }
            if cell.live().len() > crate::MIN_LIVE_NODES {
                return cell;
            }
        };
        let mut costs: Vec<_> = (0..101)
            .map(|_| {
                let cells: Vec<Cell> = space.stages.iter().map(|stage| child(stage.nodes)).collect();
                space.assemble(input, num_classes, &cells).lower().unwrap().cost()
            })
            .collect();
        costs.sort_by_key(|cost| cost.macs);
        let macs = costs[50].macs.0;
        costs.sort_by_key(|cost| cost.params);
        [macs, costs[50].params.0]
    }

    #[test]
    fn typical_children_have_the_size_they_were_made_for() {
        let median = |name: &str| {
            let (input, num_classes) = space_preset_io(name).unwrap();
            median_child(name, input, num_classes)
        };
        let [macs, params] = median("swiftnet-small");
        assert!((100_000..400_000).contains(&macs) && (3_000..10_000).contains(&params), "{macs} {params}");
        let [macs, params] = median_child("swiftnet-small", Shape::chw(1, 28, 28), 10);
        assert!((1_000_000..4_000_000).contains(&macs) && (3_000..10_000).contains(&params), "{macs} {params}");
        // The shipped network has 56.2 M and 0.22 M, the paper's ImageNet network 53 M and 2.07 M.
        let [macs, params] = median("swiftnet-vww");
        assert!((40_000_000..65_000_000).contains(&macs) && (150_000..300_000).contains(&params), "{macs} {params}");
        let [macs, params] = median("swiftnet-imagenet");
        assert!(
            (45_000_000..70_000_000).contains(&macs) && (1_800_000..2_300_000).contains(&params),
            "{macs} {params}"
        );
    }
}
