//! The file `meta-graph.json`.

use gram_ir::{CellOp, Dimension, EdgeMap, NodeOperators, Quantity, Space};
use serde::{Deserialize, Serialize};

use crate::op_weights::floor;
use crate::{LayoutWeights, MetaConfig, MetaConfigError, MetaGraph, MetaStage, OpWeights};

/// Version of `meta-graph.json`.
pub const FORMAT_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetaFile {
    format_version: u32,
    space: String,
    max_in_degree: usize,
    n_rounds: usize,
    config: MetaConfig,
    stages: Vec<StageFile>,
    /// What the space leaves open besides; left out where there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    layout: Vec<LayoutFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayoutFile {
    what: What,
    /// Index of the stage, from 0; none for what concerns all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stage: Option<usize>,
    values: Vec<usize>,
    /// Their probabilities.
    weights: Vec<f64>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    ImageSize,
    Width,
    OutputWidth,
    Repeats,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StageFile {
    /// Number of nodes, the input among them; says the same as the lengths of the others.
    nodes: usize,
    /// Operators of nodes 1, 2, ….
    operators: Vec<CellOp>,
    /// Weights of edges (0,1), (0,2), (1,2), (0,3), ….
    weights: EdgeMap<f64>,
    /// Where operators are searched; then `operators` has each node's likeliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operator_weights: Option<OpWeightsFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpWeightsFile {
    /// The operators that a node may have, each once.
    menu: Vec<CellOp>,
    /// Node 1's probabilities in the order of the menu, then node 2's, ….
    weights: Vec<f64>,
}

impl MetaGraph {
    /// The text of `meta-graph.json`, ending with a line break. The same meta-graph gives the same bytes.
    ///
    /// # Errors
    /// None that a valid meta-graph can cause; the encoder's own are passed on.
    pub fn to_json(&self) -> Result<String, MetaFileError> {
        let stage = |stage: &MetaStage| StageFile {
            nodes: stage.n_nodes(),
            operators: stage.ops.clone(),
            weights: stage.weights.clone(),
            operator_weights: stage
                .op_weights
                .as_ref()
                .map(|weights| OpWeightsFile { menu: weights.menu().to_vec(), weights: weights.values().to_vec() }),
        };
        let file = MetaFile {
            format_version: FORMAT_VERSION,
            space: self.space_name.clone(),
            max_in_degree: self.max_in_degree,
            n_rounds: self.n_rounds,
            config: self.config,
            stages: self.stages.iter().map(stage).collect(),
            layout: self.layout.iter().map(LayoutFile::of).collect(),
        };
        Ok(serde_json::to_string_pretty(&file)? + "\n")
    }

    /// Reads the text of `meta-graph.json` and checks every value in it.
    ///
    /// # Errors
    /// [`MetaFileError`] if the text is no such file, of another version, or holds sizes that disagree or weights out of range.
    pub fn from_json(text: &str) -> Result<Self, MetaFileError> {
        let file: MetaFile = serde_json::from_str(text)?;
        if file.format_version != FORMAT_VERSION {
            return Err(MetaFileError::Version { expected: FORMAT_VERSION, got: file.format_version });
        }
        file.config.verify()?;
        if file.max_in_degree == 0 || file.stages.is_empty() {
            return Err(MetaFileError::Empty);
        }
        let stages = file.stages.into_iter().enumerate();
        let stages: Vec<MetaStage> =
            stages.map(|(index, stage)| stage.check(index, &file.config)).collect::<Result<_, _>>()?;
        let layout = file.layout.into_iter().enumerate();
        let layout = layout
            .map(|(index, dimension)| dimension.check(index, stages.len(), &file.config))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            space_name: file.space,
            max_in_degree: file.max_in_degree,
            config: file.config,
            n_rounds: file.n_rounds,
            stages,
            layout,
        })
    }

    /// Checks that the meta-graph is one of `space`: stages, nodes, operators, largest in-degree and what is left open besides agree.
    ///
    /// # Errors
    /// [`MetaFileError::OtherSpace`] with what differs.
    pub fn check_space(&self, space: &Space) -> Result<(), MetaFileError> {
        let differs = |what: String| Err(MetaFileError::OtherSpace { space: space.name.clone(), what });
        if self.max_in_degree != space.max_in_degree {
            return differs(format!("max_in_degree is {}, not {}", self.max_in_degree, space.max_in_degree));
        }
        if self.stages.len() != space.stages.len() {
            return differs(format!("it has {} stages, not {}", self.stages.len(), space.stages.len()));
        }
        for (index, (stage, of_space)) in self.stages.iter().zip(&space.stages).enumerate() {
            if stage.n_nodes() != of_space.nodes {
                return differs(format!("stage {index} has {} nodes, not {}", stage.n_nodes(), of_space.nodes));
            }
            if let Some(op) = stage.ops.iter().find(|op| !space.operators.contains(op)) {
                return differs(format!("stage {index} has a node `{op}`, which is not among the operators"));
            }
            let searched = space.node_operators == NodeOperators::Searched;
            match stage.op_weights() {
                Some(_) if !searched => {
                    return differs(format!("stage {index} has searched operators, not dealt ones"));
                }
                None if searched => return differs(format!("stage {index} has dealt operators, not searched ones")),
                Some(weights) if !weights.menu().iter().all(|op| space.operators.contains(op)) => {
                    return differs(format!("stage {index} has another operator on its menu"));
                }
                Some(weights) if !space.operators.iter().all(|op| weights.menu().contains(op)) => {
                    return differs(format!("stage {index} lacks an operator on its menu"));
                }
                _ => {}
            }
        }
        let own = self.layout.iter().map(LayoutWeights::dimension);
        if !own.eq(&space.dimensions()) {
            return differs("its widths, repeats or image sizes to choose from are others".into());
        }
        Ok(())
    }
}

impl LayoutFile {
    fn of(weights: &LayoutWeights) -> Self {
        let Dimension { what, values } = weights.dimension();
        let (what, stage) = match *what {
            Quantity::ImageSize => (What::ImageSize, None),
            Quantity::Width { stage } => (What::Width, Some(stage)),
            Quantity::OutputWidth { stage } => (What::OutputWidth, Some(stage)),
            Quantity::Repeats { stage } => (What::Repeats, Some(stage)),
        };
        Self { what, stage, values: values.clone(), weights: weights.weights().to_vec() }
    }

    fn check(self, index: usize, n_stages: usize, config: &MetaConfig) -> Result<LayoutWeights, MetaFileError> {
        let refused = |reason: &str| Err(MetaFileError::Layout { index, reason: reason.into() });
        let what = match (self.what, self.stage) {
            (What::ImageSize, None) => Quantity::ImageSize,
            (What::Width, Some(stage)) => Quantity::Width { stage },
            (What::OutputWidth, Some(stage)) => Quantity::OutputWidth { stage },
            (What::Repeats, Some(stage)) => Quantity::Repeats { stage },
            _ => return refused("an image size has no stage, everything else has one"),
        };
        if self.stage.is_some_and(|stage| stage >= n_stages) {
            return refused("there is no such stage");
        }
        let n = self.values.len();
        if !(2..=usize::from(u8::MAX)).contains(&n) || self.weights.len() != n {
            return refused("there must be 2 to 255 values and a weight for each");
        }
        let least = floor(n, config.epsilon) - ROUNDING;
        let sum: f64 = self.weights.iter().sum();
        if !self.weights.iter().all(|&weight| weight >= least) || (sum - 1.0).abs() > ROUNDING {
            return refused("the weights do not sum to 1, or one is too small");
        }
        Ok(LayoutWeights { dimension: Dimension { what, values: self.values }, weights: self.weights })
    }
}

impl StageFile {
    fn check(self, stage: usize, config: &MetaConfig) -> Result<MetaStage, MetaFileError> {
        let nodes = self.nodes;
        let n_edges = self.weights.len();
        let in_range = (3..=Space::MAX_STAGE_NODES).contains(&nodes);
        if !in_range || self.operators.len() != nodes - 1 || self.weights.n_nodes() != nodes {
            return Err(MetaFileError::Sizes { stage, nodes, operators: self.operators.len(), n_edges });
        }
        let (low, high) = (config.epsilon, 1.0 - config.epsilon);
        if let Some((from, to, &weight)) = self.weights.iter().find(|(_, _, w)| !(low..=high).contains(*w)) {
            return Err(MetaFileError::Weight { stage, from: from.0, to: to.0, weight, low, high });
        }
        let op_weights = self.operator_weights.map(|file| file.check(stage, &self.operators, config)).transpose()?;
        Ok(MetaStage { ops: self.operators, weights: self.weights, op_weights })
    }
}

impl OpWeightsFile {
    fn check(self, stage: usize, likeliest: &[CellOp], config: &MetaConfig) -> Result<OpWeights, MetaFileError> {
        let refused = |reason: String| Err(MetaFileError::Operators { stage, reason });
        let n_ops = self.menu.len();
        if n_ops == 0 || (1..n_ops).any(|index| self.menu[..index].contains(&self.menu[index])) {
            return refused("the menu is empty or names an operator twice".into());
        }
        if self.weights.len() != likeliest.len() * n_ops {
            let (nodes, got) = (likeliest.len(), self.weights.len());
            return refused(format!("{nodes} nodes with {n_ops} operators need {} weights, got {got}", nodes * n_ops));
        }
        let least = floor(n_ops, config.epsilon) - ROUNDING;
        for (node, weights) in self.weights.chunks_exact(n_ops).enumerate() {
            let sum: f64 = weights.iter().sum();
            if !weights.iter().all(|&weight| weight >= least) || (sum - 1.0).abs() > ROUNDING {
                return refused(format!("node {}: the weights sum to {sum}, or one is below {least}", node + 1));
            }
        }
        let weights = OpWeights::from_parts(self.menu, self.weights);
        let mut kept = likeliest.to_vec();
        weights.keep_likeliest(&mut kept);
        match kept.iter().zip(likeliest).position(|(kept, named)| kept != named) {
            Some(index) => refused(format!("node {}: `{}` is not its likeliest operator", index + 1, likeliest[index])),
            None => Ok(weights),
        }
    }
}

/// By so much a sum of probabilities may miss 1.
const ROUNDING: f64 = 1e-9;

/// Why a text is no usable meta-graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaFileError {
    /// No JSON, or other fields than a meta-graph's.
    #[error("not a meta-graph file: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version.
    #[error("the meta-graph has format version {got}, this program reads {expected}")]
    Version {
        /// What this program reads.
        expected: u32,
        /// What the file has.
        got: u32,
    },
    /// Hyper-parameters out of range.
    #[error(transparent)]
    Config(#[from] MetaConfigError),
    /// Nothing in it.
    #[error("the meta-graph has no stages or max_in_degree 0")]
    Empty,
    /// Sizes that disagree.
    #[error(
        "stage {stage}: {nodes} nodes (3 to 128 are possible) need {need} operators and {edges} weights, got {operators} and {n_edges}",
        need = nodes.saturating_sub(1),
        edges = nodes.saturating_mul(nodes.saturating_sub(1)) / 2
    )]
    Sizes {
        /// Index of the stage, from 0.
        stage: usize,
        /// Number of nodes that the file claims.
        nodes: usize,
        /// Number of operators.
        operators: usize,
        /// Number of weights.
        n_edges: usize,
    },
    /// A weight out of range.
    #[error("stage {stage}, edge {from} -> {to}: weight {weight} is not between {low} and {high}")]
    Weight {
        /// Index of the stage, from 0.
        stage: usize,
        /// Source.
        from: u16,
        /// Target.
        to: u16,
        /// The weight.
        weight: f64,
        /// ε.
        low: f64,
        /// 1 − ε.
        high: f64,
    },
    /// Weights of operators that are none.
    #[error("stage {stage}, operator weights: {reason}")]
    Operators {
        /// Index of the stage, from 0.
        stage: usize,
        /// What is wrong.
        reason: String,
    },
    /// Weights of a dimension of the layout that are none.
    #[error("layout, dimension {index}: {reason}")]
    Layout {
        /// Index of the dimension, from 0.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// A meta-graph of another space.
    #[error("the meta-graph is not one of space `{space}`: {what}")]
    OtherSpace {
        /// Name of the space.
        space: String,
        /// What differs.
        what: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta_graph::tests::{meta, searched, space};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn the_file_reads_back_bit_for_bit() {
        let mut meta = meta(&[5, 9]);
        meta.stages[1].weights.values_mut()[3] = 1.0 / 3.0;
        meta.n_rounds = 4;
        let text = meta.to_json().unwrap();
        let read = MetaGraph::from_json(&text).unwrap();
        assert_eq!(read, meta);
        assert_eq!(read.to_json().unwrap(), text);
        assert!(read.check_space(&space(&[5, 9])).is_ok());
    }

    #[test]
    fn layouts_read_back_and_belong_to_their_space() {
        let mut open = space(&[4]);
        open.image_sizes = vec![8, 16];
        open.stages[0].widths = vec![4, 8, 12];
        let mut learnt = MetaGraph::new(&open, MetaConfig::default(), 1).unwrap();
        let child = learnt.sample(&mut ChaCha8Rng::seed_from_u64(1), &|_| true).unwrap();
        learnt.propagate([(&child, 1.0)]).unwrap();
        let text = learnt.to_json().unwrap();
        let read = MetaGraph::from_json(&text).unwrap();
        assert_eq!(read, learnt);
        assert!(read.check_space(&open).is_ok() && read.check_space(&space(&[4])).is_err());
        let bad = [
            ("\"stage\": 0", "\"stage\": 3", "no such stage"),
            ("\"what\": \"image-size\"", "\"what\": \"repeats\"", "everything else has one"),
            ("\"weights\": [\n        0.", "\"weights\": [\n        1.", "dimension 0"),
        ];
        for (from, to, reason) in bad {
            assert!(text.contains(from), "{text}");
            let at = text.rfind(from).unwrap();
            let changed = format!("{}{}", &text[..at], text[at..].replacen(from, to, 1));
            let error = MetaGraph::from_json(&changed).unwrap_err().to_string();
            assert!(error.contains(reason) || error.contains("dimension 1"), "{error}");
        }
    }

    #[track_caller]
    fn refused(from: &str, to: &str, reason: &str) {
        let text = meta(&[3]).to_json().unwrap();
        assert!(text.contains(from), "{text}");
        let error = MetaGraph::from_json(&text.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn searched_operators_read_back_and_old_files_still_load() {
        let mut learnt = searched(&[4]);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let child = learnt.sample(&mut rng, &|_| true).unwrap();
        learnt.propagate([(&child, 1.0)]).unwrap();
        let text = learnt.to_json().unwrap();
        let read = MetaGraph::from_json(&text).unwrap();
        assert_eq!((&read, read.to_json().unwrap()), (&learnt, text));
        let of_space = |node_operators| read.check_space(&Space { node_operators, ..space(&[4]) });
        assert!(of_space(NodeOperators::Searched).is_ok());
        assert!(of_space(NodeOperators::Dealt).unwrap_err().to_string().contains("has searched operators"));
        let mut other = Space { node_operators: NodeOperators::Searched, ..space(&[4]) };
        other.operators.push(CellOp::Identity);
        assert!(read.check_space(&other).unwrap_err().to_string().contains("lacks an operator"));
        // A file from before operators could be searched has no such field, as one with dealt operators has none now.
        let old = meta(&[4]).to_json().unwrap();
        assert!(!old.contains("operator_weights"));
        let lacks = MetaGraph::from_json(&old)
            .unwrap()
            .check_space(&Space { node_operators: NodeOperators::Searched, ..space(&[4]) });
        assert!(lacks.unwrap_err().to_string().contains("has dealt operators"));
    }

    #[test]
    fn bad_operator_weights_are_refused_with_the_node() {
        let text = searched(&[3]).to_json().unwrap();
        let refused = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
            change(&mut json["stages"][0]);
            MetaGraph::from_json(&json.to_string()).unwrap_err().to_string()
        };
        let weights = |stage: &mut serde_json::Value, weights: [f64; 4]| {
            stage["operator_weights"]["weights"] = weights.to_vec().into();
        };
        assert!(refused(&|stage| weights(stage, [0.5, 0.5, 0.5, 0.6])).contains("node 2: the weights sum to 1.1"));
        assert!(refused(&|stage| weights(stage, [0.5, 0.5, 0.01, 0.99])).contains("node 2: the weights sum to 1,"));
        assert!(refused(&|stage| weights(stage, [f64::NAN; 4])).contains("not a meta-graph file"));
        assert!(
            refused(&|stage| stage["operator_weights"]["weights"] = vec![1.0].into())
                .contains("2 nodes with 2 operators need 4 weights, got 1")
        );
        assert!(
            refused(&|stage| stage["operator_weights"]["menu"] = vec!["conv1x1"; 2].into())
                .contains("names an operator twice")
        );
        let unlikely = refused(&|stage| {
            weights(stage, [0.9, 0.1, 0.9, 0.1]);
            stage["operators"] = vec!["conv1x1", "sep3x3"].into();
        });
        assert!(unlikely.contains("node 2: `sep3x3` is not its likeliest operator"), "{unlikely}");
    }

    #[test]
    fn bad_files_are_refused_with_the_place() {
        refused("\"format_version\": 1", "\"format_version\": 2", "format version 2, this program reads 1");
        refused("\"nodes\": 3", "\"nodes\": 4", "4 nodes (3 to 128 are possible) need 3 operators and 6 weights");
        refused("\"nodes\": 3", "\"nodes\": 99999999999", "got 2 and 3");
        refused("0.5,", "1.5,", "stage 0, edge 0 -> 1: weight 1.5 is not between 0.02 and 0.98");
        refused("0.5,", "", "do not fit a complete DAG");
        refused("\"eta\": 0.2", "\"eta\": 7", "eta: 7");
        refused("\"n_rounds\"", "\"rounds\"", "unknown field");
        refused("\"max_in_degree\": 4", "\"max_in_degree\": 0", "max_in_degree 0");
        assert!(matches!(MetaGraph::from_json(""), Err(MetaFileError::Json(_))));
    }

    #[test]
    fn other_spaces_are_told_apart() {
        let differs = |space: &Space| meta(&[5, 9]).check_space(space).unwrap_err().to_string();
        assert!(differs(&space(&[5])).contains("2 stages, not 1"));
        assert!(differs(&space(&[5, 8])).contains("stage 1 has 9 nodes, not 8"));
        let mut other = space(&[5, 9]);
        other.operators = vec![CellOp::Identity];
        assert!(differs(&other).contains("which is not among the operators"));
        other.max_in_degree = 3;
        assert!(differs(&other).contains("max_in_degree is 4, not 3"));
    }
}
