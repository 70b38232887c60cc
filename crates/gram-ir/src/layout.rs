//! Layouts: what a space leaves open besides wiring and operators: stage widths, repeats of cells, the image's size.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Architecture, Cell, Shape, Space, StageSpace, StemLayer};

/// One choice that every child of a space makes, besides those of its cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dimension {
    /// What is chosen.
    pub what: Quantity,
    /// The values, in the order of the space's file; two or more.
    pub values: Vec<usize>,
}

/// What a [`Dimension`] chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// Height and width in pixels that images are resized to.
    ImageSize,
    /// Channels of each operator of a stage.
    Width {
        /// Index of the stage, from 0.
        stage: usize,
    },
    /// Channels of a stage's projected output.
    OutputWidth {
        /// Index of the stage, from 0.
        stage: usize,
    },
    /// How often a stage's cell is chained.
    Repeats {
        /// Index of the stage, from 0.
        stage: usize,
    },
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ImageSize => f.write_str("image size"),
            Self::Width { stage } => write!(f, "stage {stage}: width"),
            Self::OutputWidth { stage } => write!(f, "stage {stage}: output width"),
            Self::Repeats { stage } => write!(f, "stage {stage}: repeats"),
        }
    }
}

/// A value for each [`Dimension`] of a space: its index among the dimension's values. Empty where a space leaves nothing open.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Layout(pub Vec<u8>);

impl Layout {
    /// Whether there is nothing to choose.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One child of a space: what it chose of everything that the space leaves open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blueprint {
    /// Widths, repeats, image size.
    pub layout: Layout,
    /// One cell per stage, in order.
    pub cells: Vec<Cell>,
}

impl From<Vec<Cell>> for Blueprint {
    /// Of a space that leaves nothing open but its cells.
    fn from(cells: Vec<Cell>) -> Self {
        Self { layout: Layout::default(), cells }
    }
}

impl Space {
    /// The architecture of a child, for images that have shape `input` before they are resized.
    ///
    /// # Panics
    /// If there are not as many cells as stages; that is a bug of the caller.
    pub fn build(&self, input: Shape, num_classes: usize, blueprint: &Blueprint) -> Architecture {
        if blueprint.layout.is_empty() {
            return self.assemble(input, num_classes, &blueprint.cells);
        }
        self.fixed(&blueprint.layout).assemble(input, num_classes, &blueprint.cells)
    }

    /// A space without any menu whose children are this space's children in this layout, and the shape of their images.
    pub fn plain(&self, layout: &Layout, input: Shape) -> (Self, Shape) {
        let fixed = self.fixed(layout);
        let input = fixed.resized(input);
        (Self { image_sizes: Vec::new(), channel_multiple: 1, ..fixed }, input)
    }

    /// The layout of which an architecture is a child; none if it is none of this space's.
    pub fn layout_of(&self, architecture: &Architecture) -> Option<Layout> {
        let multiple = self.channel_multiple.max(1);
        let choice = |dimension: Dimension| {
            let is_value = |value: usize| match dimension.what {
                Quantity::ImageSize => (architecture.input.h, architecture.input.w) == (value, value),
                Quantity::Width { stage } => architecture
                    .stages
                    .get(stage)
                    .is_some_and(|own| own.node_channels == value.next_multiple_of(multiple)),
                Quantity::OutputWidth { stage } => {
                    let project = architecture.stages.get(stage).and_then(|own| own.output.project);
                    project == Some(value.next_multiple_of(multiple))
                }
                Quantity::Repeats { stage } => architecture.stages.get(stage).is_some_and(|own| own.repeats == value),
            };
            dimension.values.iter().position(|&value| is_value(value)).map(|index| index as u8)
        };
        self.dimensions().into_iter().map(choice).collect::<Option<Vec<u8>>>().map(Layout)
    }

    /// Every combination of what a stage leaves open, each with its choices in the order of [`Space::dimensions`] and the stage that they
    /// give; a single one without choices where the stage leaves nothing open.
    pub fn stage_options(&self, stage: usize) -> Vec<(Vec<u8>, StageSpace)> {
        let dimensions = self.dimensions();
        let is_own = |what: &Quantity| match *what {
            Quantity::ImageSize => false,
            Quantity::Width { stage: of } | Quantity::OutputWidth { stage: of } | Quantity::Repeats { stage: of } => {
                of == stage
            }
        };
        let mut layouts = vec![Layout(vec![0; dimensions.len()])];
        let own: Vec<usize> = (0..dimensions.len()).filter(|&index| is_own(&dimensions[index].what)).collect();
        for &index in &own {
            let with = |layout: &Layout| {
                let layout = layout.clone();
                (0..dimensions[index].values.len()).map(move |choice| {
                    let mut chosen = layout.clone();
                    chosen.0[index] = choice as u8;
                    chosen
                })
            };
            layouts = layouts.iter().flat_map(with).collect();
        }
        let option = |layout: Layout| {
            let choices = own.iter().map(|&index| layout.0[index]).collect();
            (choices, self.fixed(&layout).stages.swap_remove(stage))
        };
        layouts.into_iter().map(option).collect()
    }

    /// Everything that children choose besides their cells, in a fixed order: the image's size, then stage by stage width, output width,
    /// repeats. Menus of a single value are no choice.
    pub fn dimensions(&self) -> Vec<Dimension> {
        let mut found = Vec::new();
        let mut open = |what, values: &[usize]| {
            if values.len() > 1 {
                found.push(Dimension { what, values: values.to_vec() });
            }
        };
        open(Quantity::ImageSize, &self.image_sizes);
        for (stage, space) in self.stages.iter().enumerate() {
            open(Quantity::Width { stage }, &space.widths);
            open(Quantity::OutputWidth { stage }, &space.output_widths);
            open(Quantity::Repeats { stage }, &space.depths);
        }
        found
    }

    /// Whether a layout has one of the values for each dimension.
    pub fn allows(&self, layout: &Layout) -> bool {
        let dimensions = self.dimensions();
        dimensions.len() == layout.0.len()
            && dimensions.iter().zip(&layout.0).all(|(dimension, &value)| usize::from(value) < dimension.values.len())
    }

    /// The space with everything that layouts choose chosen, and channels rounded up as [`channel_multiple`](Space::channel_multiple) says.
    ///
    /// Choices that the layout lacks are the first of their menus; so an empty layout gives every menu's first value.
    pub fn fixed(&self, layout: &Layout) -> Self {
        let mut fixed = self.clone();
        // Menus of a single value first, and the first values of the others.
        for stage in &mut fixed.stages {
            stage.channels = stage.widths.first().copied().unwrap_or(stage.channels);
            stage.output.project = stage.output_widths.first().copied().or(stage.output.project);
            stage.repeats = stage.depths.first().copied().unwrap_or(stage.repeats);
            (stage.widths, stage.output_widths, stage.depths) = (Vec::new(), Vec::new(), Vec::new());
        }
        fixed.image_sizes.truncate(1);
        for (dimension, &choice) in self.dimensions().iter().zip(&layout.0) {
            let Some(&value) = dimension.values.get(usize::from(choice)) else { continue };
            match dimension.what {
                Quantity::ImageSize => fixed.image_sizes = vec![value],
                Quantity::Width { stage } => fixed.stages[stage].channels = value,
                Quantity::OutputWidth { stage } => fixed.stages[stage].output.project = Some(value),
                Quantity::Repeats { stage } => fixed.stages[stage].repeats = value,
            }
        }
        fixed.aligned(self.channel_multiple)
    }

    /// The shape of images of the shape `input` once they are resized: the space's first image size, where it has one.
    pub fn resized(&self, input: Shape) -> Shape {
        self.image_sizes.first().map_or(input, |&size| Shape::chw(input.c, size, size))
    }

    /// The space with all its channels rounded up to multiples of `multiple`.
    ///
    /// Engines work on blocks of channels, 16 with AVX-512: what does not fill its last block is computed all the same, and concatenations
    /// of such maps leave the blocked layout. Networks of multiples of 16 are faster for what they compute, and easier to predict.
    #[must_use]
    pub fn aligned(&self, multiple: usize) -> Self {
        let up = |channels: &mut usize| *channels = channels.next_multiple_of(multiple.max(1));
        let mut aligned = self.clone();
        for layer in &mut aligned.stem {
            match layer {
                StemLayer::Conv { channels, .. } | StemLayer::Sep { channels, .. } => up(channels),
                StemLayer::Maxpool2 => {}
            }
        }
        for stage in &mut aligned.stages {
            up(&mut stage.channels);
            stage.widths.iter_mut().chain(&mut stage.output_widths).for_each(up);
            stage.output.project.iter_mut().for_each(up);
        }
        aligned.head.conv.iter_mut().for_each(up);
        aligned
    }

    /// A layout in words, e.g. `image size 24, stage 0: width 16`; empty where there is nothing to choose.
    pub fn describe(&self, layout: &Layout) -> String {
        let dimensions = self.dimensions();
        let chosen = dimensions.iter().zip(&layout.0).filter_map(|(dimension, &choice)| {
            Some(format!("{} {}", dimension.what, dimension.values.get(usize::from(choice))?))
        });
        chosen.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cell, CellNodeId, CellOp, Limits, Macs, space_preset};

    fn open() -> Space {
        let mut space = space_preset("swiftnet-small").unwrap();
        space.image_sizes = vec![6, 8];
        space.stages[0].widths = vec![4, 6, 10];
        space.stages[0].depths = vec![1, 2];
        space.stages[1].output_widths = vec![12, 20];
        space.stages[1].widths = vec![16];
        space.verify().unwrap();
        space
    }

    #[test]
    fn a_layout_chooses_one_value_of_each_menu() {
        let space = open();
        let names: Vec<String> = space.dimensions().iter().map(|d| format!("{} {:?}", d.what, d.values)).collect();
        let expected = [
            "image size [6, 8]",
            "stage 0: width [4, 6, 10]",
            "stage 0: repeats [1, 2]",
            "stage 1: output width [12, 20]",
        ];
        assert_eq!(names, expected);
        let layout = Layout(vec![1, 2, 1, 0]);
        assert!(space.allows(&layout) && !space.allows(&Layout(vec![1, 3, 1, 0])) && !space.allows(&Layout::default()));
        let fixed = space.fixed(&layout);
        assert_eq!((fixed.stages[0].channels, fixed.stages[0].repeats, fixed.stages[1].channels), (10, 2, 16));
        assert_eq!((fixed.stages[0].output.project, fixed.stages[1].output.project), (Some(16), Some(12)));
        assert_eq!(fixed.resized(Shape::chw(3, 32, 32)), Shape::chw(3, 8, 8));
        assert!(fixed.dimensions().is_empty() && fixed.fixed(&Layout::default()) == fixed);
        assert_eq!(
            space.describe(&layout),
            "image size 8, stage 0: width 10, stage 0: repeats 2, stage 1: output width 12"
        );
    }

    #[test]
    fn a_stage_has_every_combination_of_its_menus_once() {
        let options = open().stage_options(0);
        let found: Vec<(Vec<u8>, usize, usize)> =
            options.into_iter().map(|(choices, stage)| (choices, stage.channels, stage.repeats)).collect();
        let expected = [(4, 1), (4, 2), (6, 1), (6, 2), (10, 1), (10, 2)];
        let choices = [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]];
        let expected: Vec<_> =
            choices.iter().zip(expected).map(|(c, (width, depth))| (c.to_vec(), width, depth)).collect();
        assert_eq!(found, expected);
        assert_eq!(space_preset("swiftnet-vww").unwrap().stage_options(1).len(), 1);
    }

    #[test]
    fn an_empty_layout_takes_the_first_of_every_menu() {
        let fixed = open().fixed(&Layout::default());
        assert_eq!((fixed.image_sizes, fixed.stages[0].channels, fixed.stages[0].repeats), (vec![6], 4, 1));
        let plain = space_preset("swiftnet-vww").unwrap();
        assert_eq!(plain.fixed(&Layout::default()), plain);
    }

    #[test]
    fn channels_are_rounded_up() {
        let space = Space { channel_multiple: 8, ..open() };
        let layout = Layout(vec![0, 2, 0, 1]);
        let fixed = space.fixed(&layout);
        assert_eq!((fixed.stages[0].channels, fixed.stages[1].output.project), (16, Some(24)));
        let cell = || {
            let mut cell = Cell::new();
            cell.add_node(CellNodeId(1), CellOp::Sep3x3).unwrap();
            cell.add_edge(CellNodeId::INPUT, CellNodeId(1)).unwrap();
            cell
        };
        let network = fixed.assemble(Shape::chw(1, 8, 8), 10, &[cell(), cell()]).lower().unwrap();
        let wide = network.nodes().iter().filter(|node| node.shape.h > 1 && node.name != "input");
        assert!(
            wide.into_iter().all(|node| node.shape.c.is_multiple_of(8) || node.name.ends_with("dw")),
            "{network:?}"
        );
        let (plain, input) = space.plain(&layout, Shape::chw(1, 8, 8));
        let child = plain.assemble(input, 10, &[cell(), cell()]);
        assert_eq!(input, Shape::chw(1, 6, 6));
        let blueprint = Blueprint { layout: layout.clone(), cells: vec![cell(), cell()] };
        assert_eq!(child, space.build(Shape::chw(1, 8, 8), 10, &blueprint));
        assert_eq!(space.layout_of(&child), Some(layout));
        let unlimited = Limits { max_macs: Some(Macs(u64::MAX)), ..Limits::default() };
        assert!(unlimited.allow(&network.cost()));
    }
}
