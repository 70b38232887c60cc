//! Search spaces: everything about an architecture that the search does not decide.

use serde::{Deserialize, Serialize};

use crate::{Activation, Architecture, Cell, CellOp, CellOutput, Downsample, Head, Shape, Stage, StemLayer};

/// A search space: stem, head and, for each stage, how many nodes with which operators and channels.
///
/// What is searched is the wiring of each stage's cell. Operators are dealt out to nodes beforehand (ALGORITHMS 1.2, sibling code), or
/// searched as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Space {
    /// A name for people; letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// The non-linearity behind every norm that has one.
    pub activation: Activation,
    /// Largest in-degree of a node; 4 in the shipped SwiftNet.
    #[serde(default = "default_max_in_degree")]
    pub max_in_degree: usize,
    /// Operators that are dealt out to the nodes of each stage, or the menu of every node where they are searched.
    pub operators: Vec<CellOp>,
    /// Whether a node's operator is fixed or searched.
    #[serde(default, skip_serializing_if = "NodeOperators::is_dealt")]
    pub node_operators: NodeOperators,
    /// Layers before the first stage.
    pub stem: Vec<StemLayer>,
    /// The searched stages.
    pub stages: Vec<StageSpace>,
    /// What follows the last stage.
    #[serde(default)]
    pub head: Head,
}

fn default_max_in_degree() -> usize {
    4
}

/// How nodes get their operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeOperators {
    /// Dealt out before the search, which then wires them (ALGORITHMS 1.2, sibling code).
    #[default]
    Dealt,
    /// Searched with the wiring: every child chooses one for each live node.
    Searched,
}

impl NodeOperators {
    /// Whether operators are dealt out.
    pub fn is_dealt(&self) -> bool {
        *self == Self::Dealt
    }
}

/// One stage of a [`Space`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageSpace {
    /// Nodes of the complete DAG, the input (node 0) among them; 30 in the shipped SwiftNet.
    pub nodes: usize,
    /// Channels that each operator gives.
    pub channels: usize,
    /// How often the cell is chained.
    #[serde(default = "one")]
    pub repeats: usize,
    /// In front of the stage.
    #[serde(default)]
    pub downsample: Downsample,
    /// What a cell makes of its leaves.
    pub output: CellOutput,
}

fn one() -> usize {
    1
}

/// Fewest live operator nodes of a cell (ALGORITHMS 1.5, feasible set).
pub const MIN_LIVE_NODES: usize = 2;

impl Space {
    /// Largest number of nodes per stage.
    pub const MAX_STAGE_NODES: usize = 128;

    /// Everything about the space that is wrong.
    ///
    /// # Errors
    /// [`SpaceError`] with one line per broken rule, naming the field.
    pub fn verify(&self) -> Result<(), SpaceError> {
        let mut broken = Vec::new();
        let mut rule = |holds: bool, message: String| {
            if !holds {
                broken.push(message);
            }
        };
        rule(!self.name.is_empty(), "name: must not be empty".into());
        rule(!self.operators.is_empty(), "operators: name at least one".into());
        rule(self.max_in_degree >= 1, "max_in_degree: must be 1 or more".into());
        rule(!self.stages.is_empty(), "stages: there must be one or more".into());
        for (i, stage) in self.stages.iter().enumerate() {
            let nodes = stage.nodes;
            let most = Self::MAX_STAGE_NODES;
            rule(
                (MIN_LIVE_NODES + 1..=most).contains(&nodes),
                format!("stages[{i}].nodes: {nodes} is not between {} and {most}", MIN_LIVE_NODES + 1),
            );
            rule((1..=4096).contains(&stage.channels), format!("stages[{i}].channels: must be 1 to 4096"));
            rule((1..=64).contains(&stage.repeats), format!("stages[{i}].repeats: must be 1 to 64"));
            let project = stage.output.project;
            rule(project != Some(0), format!("stages[{i}].output.project: must be 1 or more"));
        }
        if broken.is_empty() { Ok(()) } else { Err(SpaceError(broken)) }
    }

    /// The architecture with these cells, one per stage, in order.
    ///
    /// # Panics
    /// If there are not as many cells as stages; that is a bug of the caller.
    pub fn assemble(&self, input: Shape, num_classes: usize, cells: &[Cell]) -> Architecture {
        assert_eq!(cells.len(), self.stages.len(), "one cell per stage");
        let stage = |(space, cell): (&StageSpace, &Cell)| Stage {
            cell: cell.clone(),
            repeats: space.repeats,
            node_channels: space.channels,
            downsample: space.downsample,
            output: space.output,
        };
        Architecture {
            name: self.name.clone(),
            input,
            num_classes,
            activation: self.activation,
            stem: self.stem.clone(),
            stages: self.stages.iter().zip(cells).map(stage).collect(),
            head: self.head,
        }
    }
}

/// What is wrong with a space, one line per broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the space is not usable: {}", .0.join("; "))]
pub struct SpaceError(pub Vec<String>);
