//! Search spaces: everything about an architecture that the search does not decide.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{Activation, Architecture, Cell, CellOp, CellOutput, Downsample, Head, Layout, Shape, Stage, StemLayer};

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
    /// Heights and widths in pixels that square images may be resized to, one of which each child chooses; empty: they stay as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_sizes: Vec<usize>,
    /// All channels are rounded up to multiples of this, as devices like it: 16 where the engine has AVX-512.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub channel_multiple: usize,
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
    /// Channels that each operator gives; may be left out where there are `widths`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub channels: usize,
    /// Values of `channels` of which each child chooses one; empty: they are given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub widths: Vec<usize>,
    /// Values of `output.project` of which each child chooses one; empty: it is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_widths: Vec<usize>,
    /// How often the cell is chained.
    #[serde(default = "one")]
    pub repeats: usize,
    /// Values of `repeats` of which each child chooses one; empty: they are given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depths: Vec<usize>,
    /// In front of the stage.
    #[serde(default)]
    pub downsample: Downsample,
    /// What a cell makes of its leaves.
    pub output: CellOutput,
}

fn one() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_one(value: &usize) -> bool {
    *value == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

impl StageSpace {
    /// A stage that searches wiring (and operators) alone: no repeats, no menus.
    pub const fn new(nodes: usize, channels: usize, downsample: Downsample, output: CellOutput) -> Self {
        Self {
            nodes,
            channels,
            widths: Vec::new(),
            output_widths: Vec::new(),
            repeats: 1,
            depths: Vec::new(),
            downsample,
            output,
        }
    }
}

const CHANNELS: RangeInclusive<usize> = 1..=4096;
const IMAGE_SIZES: RangeInclusive<usize> = 1..=4096;
/// Largest number of values of one menu.
const MAX_MENU: usize = 64;

/// Largest number of combinations of one stage's menus.
const MAX_OPTIONS: usize = 1024;

/// Whether a menu is short, without repeats and in range; an empty one is none, which is all right.
fn is_menu(values: &[usize], range: &RangeInclusive<usize>) -> bool {
    let distinct: BTreeSet<&usize> = values.iter().collect();
    values.len() <= MAX_MENU && distinct.len() == values.len() && values.iter().all(|value| range.contains(value))
}

fn menu_rule(name: &str, range: &RangeInclusive<usize>) -> String {
    format!("{name}: at most {MAX_MENU} different values of {} to {}", range.start(), range.end())
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
            let has_widths = !stage.widths.is_empty() && stage.channels == 0;
            rule(has_widths || CHANNELS.contains(&stage.channels), format!("stages[{i}].channels: must be 1 to 4096"));
            rule((1..=64).contains(&stage.repeats), format!("stages[{i}].repeats: must be 1 to 64"));
            let project = stage.output.project;
            rule(project != Some(0), format!("stages[{i}].output.project: must be 1 or more"));
            let menus = [
                ("widths", &stage.widths, CHANNELS),
                ("output_widths", &stage.output_widths, CHANNELS),
                ("depths", &stage.depths, 1..=64),
            ];
            for (name, menu, range) in menus {
                rule(is_menu(menu, &range), menu_rule(&format!("stages[{i}].{name}"), &range));
            }
            let n_options = stage.widths.len().max(1) * stage.output_widths.len().max(1) * stage.depths.len().max(1);
            rule(
                n_options <= MAX_OPTIONS,
                format!("stages[{i}]: its menus have {n_options} combinations, more than {MAX_OPTIONS}"),
            );
            let rounded = |menu: &[usize]| {
                menu.iter()
                    .map(|n| n.next_multiple_of(self.channel_multiple.clamp(1, 256)))
                    .collect::<BTreeSet<_>>()
                    .len()
            };
            for (name, menu) in [("widths", &stage.widths), ("output_widths", &stage.output_widths)] {
                let alike =
                    format!("stages[{i}].{name}: two are the same once they are rounded up to channel_multiple");
                rule(rounded(menu) == menu.len(), alike);
            }
        }
        rule(is_menu(&self.image_sizes, &IMAGE_SIZES), menu_rule("image_sizes", &IMAGE_SIZES));
        rule((1..=256).contains(&self.channel_multiple), "channel_multiple: must be 1 to 256".into());
        if broken.is_empty() { Ok(()) } else { Err(SpaceError(broken)) }
    }

    /// The architecture with these cells, one per stage, in order, for images of shape `input`.
    ///
    /// Of a space that leaves more open than the cells this is the child with the first value of every menu; see [`Space::fixed`].
    ///
    /// # Panics
    /// If there are not as many cells as stages; that is a bug of the caller.
    pub fn assemble(&self, input: Shape, num_classes: usize, cells: &[Cell]) -> Architecture {
        assert_eq!(cells.len(), self.stages.len(), "one cell per stage");
        let is_fixed =
            |stage: &StageSpace| stage.widths.is_empty() && stage.output_widths.is_empty() && stage.depths.is_empty();
        if self.channel_multiple > 1 || !self.stages.iter().all(is_fixed) {
            let fixed = Self { channel_multiple: 1, ..self.fixed(&Layout::default()) };
            return fixed.assemble(input, num_classes, cells);
        }
        let input = self.resized(input);
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
