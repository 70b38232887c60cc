//! The tensors of a network on a device, those that change in one piece each, so that an optimiser step is a handful of operations.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use gram_ir::{TensorRole, TensorSpec};

use crate::program::{Action, Program};

/// Which part of a [`Store`] a tensor is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Those that get a gradient.
    Learnt,
    /// Running statistics of norms that are run.
    Running,
    /// All others: nothing changes them.
    Fixed,
}

/// Where each tensor of a network is.
#[derive(Debug)]
pub(super) struct Places {
    specs: Vec<TensorSpec>,
    /// The part, and the elements in it.
    places: Vec<(Part, Range<usize>)>,
}

impl Places {
    pub(super) fn new(specs: Vec<TensorSpec>, program: &Program) -> Self {
        let mut ends: BTreeMap<Part, usize> = BTreeMap::new();
        let place = |(spec, part): (&TensorSpec, Part)| {
            let end = ends.entry(part).or_default();
            let start = *end;
            *end += spec.elements();
            (part, start..*end)
        };
        let places = specs.iter().zip(parts(specs.len(), program)).map(place).collect();
        Self { specs, places }
    }

    /// All tensors, in the order of the network.
    pub(super) fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// The tensors in a part, in the order of their elements there, and which elements they have.
    pub(super) fn in_part(&self, part: Part) -> impl Iterator<Item = (&TensorSpec, Range<usize>)> {
        let all = self.specs.iter().zip(&self.places);
        all.filter(move |(_, place)| place.0 == part).map(|(spec, place)| (spec, place.1.clone()))
    }

    /// One number per learnt element: `value` for those of weights, 0 for those of norms and biases.
    pub(super) fn of_weights(&self, value: f64) -> Vec<f64> {
        let of = |(spec, elements): (&TensorSpec, Range<usize>)| {
            let value = if spec.role == TensorRole::Weight { value } else { 0.0 };
            std::iter::repeat_n(value, elements.len())
        };
        self.in_part(Part::Learnt).flat_map(of).collect()
    }
}

/// The part of each of `n` tensors: learnt are those of steps that the output's gradient reaches.
fn parts(n: usize, program: &Program) -> Vec<Part> {
    let mut parts = vec![Part::Fixed; n];
    let mut reached = vec![false; program.n_slots];
    reached[program.output] = true;
    for step in program.steps.iter().rev() {
        if let Action::Norm { norm, .. } = step.action {
            [norm.mean, norm.var].into_iter().for_each(|index| parts[index] = Part::Running);
        }
        if !reached[step.output] || !program.trainable[step.output] {
            continue;
        }
        match step.action {
            Action::Conv { weight, bias, .. } => {
                [Some(weight), bias].into_iter().flatten().for_each(|index| parts[index] = Part::Learnt);
            }
            Action::Norm { norm, .. } => [norm.scale, norm.shift].into_iter().for_each(|i| parts[i] = Part::Learnt),
            _ => {}
        }
        step.inputs.iter().for_each(|&input| reached[input] = true);
    }
    parts
}

/// The tensors of a network. A copy shares all elements with the original; changing either leaves the other as it is.
#[derive(Clone, Debug)]
pub(super) struct Store {
    places: Arc<Places>,
    /// The elements of each part, one behind the other; a part without elements is missing.
    parts: BTreeMap<Part, Tensor>,
}

impl Store {
    /// With `values` for each tensor.
    pub(super) fn new(places: Arc<Places>, values: &[Vec<f64>], dtype: DType, device: &Device) -> Result<Self> {
        let mut flat: BTreeMap<Part, Vec<f64>> = BTreeMap::new();
        for ((part, _), values) in places.places.iter().zip(values) {
            flat.entry(*part).or_default().extend(values);
        }
        let upload = |(part, values)| Ok((part, upload(values, dtype, device)?));
        Ok(Self { parts: flat.into_iter().map(upload).collect::<Result<_>>()?, places })
    }

    pub(super) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// A tensor, of its shape.
    pub(super) fn get(&self, index: usize) -> Result<Tensor> {
        let (part, elements) = &self.places.places[index];
        let flat = self.part(*part)?.narrow(0, elements.start, elements.len())?;
        flat.reshape(self.places.specs[index].shape.as_slice())
    }

    /// All parts that have elements.
    pub(super) fn parts(&self) -> impl Iterator<Item = (Part, &Tensor)> {
        self.parts.iter().map(|(&part, elements)| (part, elements))
    }

    /// Those of them that training changes.
    pub(super) fn changing(&self) -> impl Iterator<Item = (Part, &Tensor)> {
        self.parts().filter(|(part, _)| *part != Part::Fixed)
    }

    /// The elements of a part that has some.
    pub(super) fn part(&self, part: Part) -> Result<&Tensor> {
        self.parts.get(&part).ok_or_else(|| candle_core::Error::msg(format!("invariant: there are {part:?} tensors")))
    }

    /// All elements of the learnt tensors, unless there are none.
    pub(super) fn learnt(&self) -> Option<&Tensor> {
        self.parts.get(&Part::Learnt)
    }

    /// One tensor for each of the network's, those of the learnt ones one behind the other.
    pub(super) fn flat_learnt(&self, tensors: &[Option<Tensor>]) -> Result<Tensor> {
        let learnt = self.places.places.iter().zip(tensors).filter(|((part, _), _)| *part == Part::Learnt);
        let flat = learnt.map(|(_, tensor)| match tensor {
            Some(tensor) => tensor.flatten_all(),
            None => Err(candle_core::Error::msg("invariant: learnt tensors have a gradient")),
        });
        Tensor::cat(&flat.collect::<Result<Vec<_>>>()?, 0)
    }

    /// Puts other elements into a part.
    pub(super) fn replace(&mut self, part: Part, elements: Tensor) {
        self.parts.insert(part, elements);
    }

    /// The values of all tensors.
    pub(super) fn values(&self) -> Result<Vec<Vec<f64>>> {
        let mut parts = BTreeMap::new();
        for (&part, elements) in &self.parts {
            let elements = elements.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
            parts.insert(part, elements.to_vec1::<f64>()?);
        }
        Ok(self.places.places.iter().map(|(part, elements)| parts[part][elements.clone()].to_vec()).collect())
    }
}

/// Numbers as a vector on a device.
pub(super) fn upload(values: Vec<f64>, dtype: DType, device: &Device) -> Result<Tensor> {
    let n = values.len();
    // Cast before they travel, so that f32 are half as many bytes.
    Tensor::from_vec(values, n, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}
