//! The tensors of a network on a device, those that change in one piece each, so that an optimiser step is a handful of operations.

use std::collections::BTreeMap;
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
    /// The part, and the first element in it.
    places: Vec<(Part, usize)>,
}

impl Places {
    pub(super) fn new(specs: Vec<TensorSpec>, program: &Program) -> Self {
        let parts = parts(specs.len(), program);
        let mut ends: BTreeMap<Part, usize> = BTreeMap::new();
        let place = |(spec, part): (&TensorSpec, Part)| {
            let end = ends.entry(part).or_default();
            let start = *end;
            *end += spec.elements();
            (part, start)
        };
        let places = specs.iter().zip(parts).map(place).collect();
        Self { specs, places }
    }

    pub(super) fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// Indices of the tensors in a part, in the order of their elements there.
    pub(super) fn in_part(&self, part: Part) -> impl Iterator<Item = usize> {
        (0..self.places.len()).filter(move |&index| self.places[index].0 == part)
    }

    /// One number per learnt element: `value` for those of weights, 0 for those of norms and biases.
    pub(super) fn of_weights(&self, value: f64) -> Vec<f64> {
        let of = |index: usize| {
            let spec = &self.specs[index];
            let value = if spec.role == TensorRole::Weight { value } else { 0.0 };
            std::iter::repeat_n(value, spec.elements())
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
        let mut parts = BTreeMap::new();
        for part in [Part::Learnt, Part::Running, Part::Fixed] {
            let values: Vec<f64> = places.in_part(part).flat_map(|index| values[index].iter().copied()).collect();
            if !values.is_empty() {
                parts.insert(part, upload(values, dtype, device)?);
            }
        }
        Ok(Self { places, parts })
    }

    pub(super) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// A tensor, of its shape.
    pub(super) fn get(&self, index: usize) -> Result<Tensor> {
        let (part, start) = self.places.places[index];
        let spec = &self.places.specs[index];
        self.part(part)?.narrow(0, start, spec.elements())?.reshape(spec.shape.as_slice())
    }

    /// The elements of a part that has some.
    pub(super) fn part(&self, part: Part) -> Result<&Tensor> {
        self.parts.get(&part).ok_or_else(|| candle_core::Error::msg(format!("invariant: there are {part:?} tensors")))
    }

    /// All elements of the learnt tensors, unless there are none.
    pub(super) fn learnt(&self) -> Option<&Tensor> {
        self.parts.get(&Part::Learnt)
    }

    /// Puts other elements into a part.
    pub(super) fn replace(&mut self, part: Part, elements: Tensor) {
        self.parts.insert(part, elements);
    }

    /// Parts that training changes, with their elements.
    pub(super) fn changing(&self) -> impl Iterator<Item = (Part, &Tensor)> {
        self.parts.iter().filter(|(part, _)| **part != Part::Fixed).map(|(&part, elements)| (part, elements))
    }

    /// The values of all tensors.
    pub(super) fn values(&self) -> Result<Vec<Vec<f64>>> {
        let mut parts = BTreeMap::new();
        for (&part, elements) in &self.parts {
            parts.insert(part, download(elements)?);
        }
        Ok(self.split(&parts))
    }

    /// The values of each tensor, of those of whole parts; none for tensors of a part that is not given.
    pub(super) fn split<T: Copy>(&self, parts: &BTreeMap<Part, Vec<T>>) -> Vec<Vec<T>> {
        let places = self.places.specs.iter().zip(&self.places.places);
        let split = |(spec, (part, start)): (&TensorSpec, &(Part, usize))| {
            parts.get(part).map_or(Vec::new(), |values| values[*start..start + spec.elements()].to_vec())
        };
        places.map(split).collect()
    }

    /// Whether all elements are finite.
    pub(super) fn is_finite(&self) -> Result<bool> {
        for elements in self.parts.values() {
            // 0 times anything finite is 0, times anything else NaN.
            let zero = (elements * 0.0)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            if zero != 0.0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Numbers as a vector on a device.
pub(super) fn upload(values: Vec<f64>, dtype: DType, device: &Device) -> Result<Tensor> {
    let n = values.len();
    // The device's own cast is left out, so that only half as much has to travel.
    Tensor::from_vec(values, n, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}

/// A tensor's numbers, row by row.
pub(super) fn download(x: &Tensor) -> Result<Vec<f64>> {
    x.to_device(&Device::Cpu)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1()
}
