//! Families of networks to measure: children of a search space, and chains of inverted residuals.

use gram_ir::{
    Activation, Cell, CellError, CellNodeId, CellOp, Conv2d, LowerError, MIN_LIVE_NODES, Network, NetworkError, NodeId,
    Op, Shape, Space, SpaceError, StemLayer,
};
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// A family of networks, of which the `index`-th of a seed is always the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// A name for people.
    pub name: String,
    /// What they have in common.
    pub kind: FamilyKind,
    /// Shape of one image.
    pub input: Shape,
    /// Number of classes.
    pub num_classes: usize,
}

/// What the networks of a family have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FamilyKind {
    /// Chains of inverted residuals like MobileNet-V2, all widths multiples of 16.
    Chain,
    /// Children of a search space.
    Space(Space),
    /// Children of search spaces like this one, with other widths (multiples of 16), sizes of stages and operators of the whole menu.
    Mixed(Space),
}

/// Why a family has no networks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FamilyError {
    /// The space is not usable.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// A child does not fit the input.
    #[error("an input of {input} does not fit: {source}")]
    Input {
        /// The input.
        input: Shape,
        /// The layer that does not fit.
        source: Box<LowerError>,
    },
    /// No child with live nodes was drawn.
    #[error("no child of stage {stage} with {MIN_LIVE_NODES} live nodes was drawn in {tries} tries")]
    NoChild {
        /// Index of the stage.
        stage: usize,
        /// Number of tries.
        tries: usize,
    },
}

impl Family {
    /// The `index`-th network of `seed`.
    ///
    /// # Errors
    /// [`FamilyError`] where the space is not usable or does not fit the input.
    pub fn network(&self, seed: u64, index: u64) -> Result<Network, FamilyError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        match &self.kind {
            FamilyKind::Chain => {
                let fits = chain(self.input, self.num_classes, &mut rng);
                fits.map_err(|source| FamilyError::Input { input: self.input, source: Box::new(source.into()) })
            }
            FamilyKind::Space(space) => self.child(space, &mut rng),
            FamilyKind::Mixed(space) => self.child(&varied(space, &mut rng), &mut rng),
        }
    }

    fn child(&self, space: &Space, rng: &mut ChaCha8Rng) -> Result<Network, FamilyError> {
        space.verify()?;
        let sizes = space.stages.iter().map(|stage| stage.nodes).enumerate();
        let cells = sizes.map(|(stage, nodes)| cell(space, stage, nodes, rng)).collect::<Result<Vec<Cell>, _>>()?;
        let child = space.assemble(self.input, self.num_classes, &cells);
        child.lower().map_err(|source| FamilyError::Input { input: self.input, source: Box::new(source) })
    }
}

/// Another space of the same stages: widths of 16 to 112 channels, 6 to 24 nodes, a few operators of the whole menu.
fn varied(space: &Space, rng: &mut impl Rng) -> Space {
    let mut varied = space.clone();
    varied.activation = [Activation::Relu, Activation::Relu6][rng.random_range(0..2)];
    varied.operators = (0..4).filter_map(|_| CellOp::ALL.choose(rng).copied()).collect();
    let mut channels = 16 * rng.random_range(1..=2);
    for stage in &mut varied.stages {
        channels += 16 * rng.random_range(0..=2);
        stage.channels = channels;
        stage.nodes = rng.random_range(6..=24);
        stage.output.project = stage.output.project.map(|_| channels + 16 * rng.random_range(0..=2));
    }
    varied
}

/// The space with all its channels rounded up to multiples of `multiple`.
///
/// Engines work on blocks of channels, 16 with AVX-512: what does not fill its last block is computed all the same, and concatenations
/// of such maps leave the blocked layout. Networks of multiples of 16 are faster for what they compute, and easier to predict.
pub fn aligned_space(space: &Space, multiple: usize) -> Space {
    let up = |channels: usize| channels.next_multiple_of(multiple.max(1));
    let mut aligned = space.clone();
    for layer in &mut aligned.stem {
        match layer {
            StemLayer::Conv { channels, .. } | StemLayer::Sep { channels, .. } => *channels = up(*channels),
            StemLayer::Maxpool2 => {}
        }
    }
    for stage in &mut aligned.stages {
        stage.channels = up(stage.channels);
        stage.output.project = stage.output.project.map(up);
    }
    aligned.head.conv = aligned.head.conv.map(up);
    aligned
}

/// The space with at most `nodes` nodes in each stage.
pub fn smaller_space(space: &Space, nodes: usize) -> Space {
    let mut smaller = space.clone();
    smaller.stages.iter_mut().for_each(|stage| stage.nodes = stage.nodes.min(nodes));
    smaller
}

const MAX_TRIES: usize = 1000;

/// A cell whose nodes read every live node before them with probability 1/2, or 1/j where there are many (ALGORITHMS 1.4).
fn cell(space: &Space, stage: usize, nodes: usize, rng: &mut impl Rng) -> Result<Cell, FamilyError> {
    for _ in 0..MAX_TRIES {
        let drawn = draw_cell(space, nodes, rng);
        if let Ok(cell) = drawn
            && cell.live().len() > MIN_LIVE_NODES
        {
            return Ok(cell);
        }
    }
    Err(FamilyError::NoChild { stage, tries: MAX_TRIES })
}

fn draw_cell(space: &Space, nodes: usize, rng: &mut impl Rng) -> Result<Cell, CellError> {
    let mut cell = Cell::new();
    for to in (1..nodes as u16).map(CellNodeId) {
        let Some(&op) = space.operators.choose(rng) else { break };
        cell.add_node(to, op)?;
        let weight = if nodes <= 8 { 0.5 } else { 0.5f64.min(1.0 / f64::from(to.0)) };
        for from in cell.live().into_iter().filter(|&from| from < to) {
            if rng.random_bool(weight) && cell.predecessors(to).len() < space.max_in_degree {
                cell.add_edge(from, to)?;
            }
        }
    }
    Ok(cell)
}

/// Stem, four to six stages of inverted residuals, 1x1 convolution, classifier.
fn chain(input: Shape, num_classes: usize, rng: &mut impl Rng) -> Result<Network, NetworkError> {
    let activation = if rng.random_bool(0.5) { Activation::Relu6 } else { Activation::Relu };
    let mut layers = Layers { network: Network::new(input), activation };
    let mut width = [16, 32][rng.random_range(0..2)];
    let mut tip = layers.conv("stem", Conv2d::new(input.c, width, 3).stride(2), NodeId(0), true)?;
    for stage in 0..rng.random_range(4..=6) {
        width = (width + 16 * rng.random_range(0..=stage + 1)).min(192);
        let shrinks = stage < 4 && layers.network.node(tip).shape.h > 4;
        for block in 0..rng.random_range(1..=4) {
            let stride = if block == 0 && shrinks { 2 } else { 1 };
            let (expansion, kernel) = ([2, 3, 4, 6][rng.random_range(0..4)], [3, 5][rng.random_range(0..2)]);
            let shape = Residual { expansion, kernel, width, stride };
            tip = layers.inverted_residual(&format!("stages.{stage}.{block}"), shape, tip)?;
        }
    }
    let head = Conv2d::new(width, 16 * rng.random_range(12..=48), 1);
    tip = layers.conv("head", head, tip, true)?;
    let pool = layers.network.add("pool", Op::GlobalAvgPool, &[tip])?;
    let classifier = Op::Linear { c_in: head.c_out, c_out: num_classes, bias: true };
    let output = layers.network.add("classifier", classifier, &[pool])?;
    layers.network.set_output(output)?;
    Ok(layers.network)
}

struct Residual {
    expansion: usize,
    kernel: usize,
    width: usize,
    stride: usize,
}

struct Layers {
    network: Network,
    activation: Activation,
}

impl Layers {
    fn conv(&mut self, name: &str, conv: Conv2d, input: NodeId, acts: bool) -> Result<NodeId, NetworkError> {
        let id = self.network.add(format!("{name}.conv"), Op::Conv(conv), &[input])?;
        let id = self.network.add(format!("{name}.bn"), Op::BatchNorm { channels: conv.c_out }, &[id])?;
        let activation = self.activation;
        if acts { self.network.add(format!("{name}.act"), Op::Act { activation }, &[id]) } else { Ok(id) }
    }

    fn inverted_residual(&mut self, name: &str, shape: Residual, input: NodeId) -> Result<NodeId, NetworkError> {
        let Residual { expansion, kernel, width, stride } = shape;
        let c_in = self.network.node(input).shape.c;
        let hidden = c_in * expansion;
        let tip = self.conv(&format!("{name}.expand"), Conv2d::new(c_in, hidden, 1), input, true)?;
        let tip = self.conv(&format!("{name}.dw"), Conv2d::depthwise(hidden, kernel).stride(stride), tip, true)?;
        let tip = self.conv(&format!("{name}.project"), Conv2d::new(hidden, width, 1), tip, false)?;
        let keeps = stride == 1 && c_in == width;
        if keeps { self.network.add(format!("{name}.add"), Op::Add, &[input, tip]) } else { Ok(tip) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gram_ir::space_preset;

    fn family(kind: FamilyKind) -> Family {
        Family { name: "test".into(), kind, input: Shape::chw(3, 64, 64), num_classes: 10 }
    }

    #[test]
    fn networks_depend_on_seed_and_index_alone() {
        for kind in [FamilyKind::Chain, FamilyKind::Space(space_preset("swiftnet-vww").unwrap())] {
            let family = family(kind);
            let network = |seed, index| family.network(seed, index).unwrap();
            assert_eq!(network(1, 5), network(1, 5));
            assert!(network(1, 5) != network(1, 6) && network(1, 5) != network(2, 5));
        }
    }

    #[test]
    fn aligned_spaces_have_full_blocks() {
        let space = aligned_space(&space_preset("swiftnet-vww").unwrap(), 16);
        let projections: Vec<_> = space.stages.iter().map(|stage| stage.output.project).collect();
        assert_eq!(projections, [Some(48), Some(80), Some(80)]);
        let network = family(FamilyKind::Space(smaller_space(&space, 8))).network(3, 0).unwrap();
        let maps = network.nodes().iter().filter(|node| node.shape.h > 1 && node.shape.c != 3);
        assert!(maps.into_iter().all(|node| node.shape.c % 16 == 0));
    }
}
