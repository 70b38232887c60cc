//! A study's images, split, at every size that its space lets children choose.

use gram_data::{Dataset, Normalisation, Splits};
use gram_ir::{Shape, Space};

use crate::failure::Result;
use crate::model_dir::Preprocessing;
use crate::study::config::{DataConfig, FORMAT_VERSION};
use crate::study::load::shape_of;

/// Split images of one size, and what a model of them must know.
pub(crate) struct Prepared {
    pub(crate) splits: Splits,
    pub(crate) preprocessing: Preprocessing,
}

/// The images of a study.
pub(crate) struct Images {
    own: Prepared,
    /// Those that children choose from; empty where the space does not leave the size open.
    resized: Vec<Prepared>,
}

impl Images {
    /// Splits the dataset, and once more for each size of the space: the dataset is read again, for images are resized as they are read.
    ///
    /// # Errors
    /// As for opening and splitting.
    pub(crate) fn prepare(dataset: &Dataset, data: &DataConfig, space: &Space) -> Result<Self> {
        let sized = |&size: &usize| {
            let data = DataConfig { image_size: Some((size, size)), ..data.clone() };
            prepared(&data.open()?, &data)
        };
        let resized = space.image_sizes.iter().map(sized).collect::<Result<_>>()?;
        Ok(Self { own: prepared(dataset, data)?, resized })
    }

    /// The images as the dataset has them.
    pub(crate) fn own(&self) -> &Prepared {
        &self.own
    }

    /// All that children are trained on.
    pub(crate) fn for_children(&self) -> impl Iterator<Item = &Prepared> {
        if self.resized.is_empty() { std::slice::from_ref(&self.own) } else { &self.resized }.iter()
    }

    /// The images for networks with this input.
    pub(crate) fn of(&self, input: Shape) -> Option<&Prepared> {
        self.for_children().find(|prepared| Shape::from(prepared.preprocessing.input) == input)
    }
}

fn prepared(dataset: &Dataset, data: &DataConfig) -> Result<Prepared> {
    let splits = data.split(dataset)?;
    let preprocessing = Preprocessing {
        format_version: FORMAT_VERSION,
        input: shape_of(dataset).into(),
        classes: dataset.classes.clone(),
        normalisation: Normalisation::of(&splits.train),
        data: data.clone(),
        data_digest: dataset.digest.clone(),
    };
    Ok(Prepared { splits, preprocessing })
}
