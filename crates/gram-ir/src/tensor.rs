//! Plain dense tensors in f64 and the weights of a network: what the reference executor and rewrites of weights work on.

use std::collections::BTreeMap;

use crate::Network;

/// A dense row-major tensor of f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<f64>,
}

impl Tensor {
    /// A tensor of `shape` with the elements `data`, last axis fastest.
    ///
    /// # Errors
    /// [`TensorError::Elements`] if there are more or fewer elements than the shape has.
    pub fn new(shape: Vec<usize>, data: Vec<f64>) -> Result<Self, TensorError> {
        let expected = shape.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis));
        if expected != Some(data.len()) {
            return Err(TensorError::Elements { shape, got: data.len() });
        }
        Ok(Self { shape, data })
    }

    /// A tensor of zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] }
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements, last axis fastest.
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    /// Elements, to change.
    pub fn data_mut(&mut self) -> &mut [f64] {
        &mut self.data
    }

    /// Elements rounded to f32.
    pub fn to_f32(&self) -> Vec<f32> {
        self.data.iter().map(|&x| x as f32).collect()
    }
}

/// The tensors of a trained network by name ([`Network::tensors`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights(BTreeMap<String, Tensor>);

impl Weights {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.0.insert(name.into(), tensor);
    }

    /// Removes and gives a tensor.
    pub fn remove(&mut self, name: &str) -> Option<Tensor> {
        self.0.remove(name)
    }

    /// One tensor.
    ///
    /// # Errors
    /// [`TensorError::Missing`].
    pub fn get(&self, name: &str) -> Result<&Tensor, TensorError> {
        self.0.get(name).ok_or_else(|| TensorError::Missing { name: name.into() })
    }

    /// All tensors in order of names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that these are exactly the tensors of `network`, each of its shape, all finite.
    ///
    /// # Errors
    /// [`TensorError`] for the first tensor, in the network's order, that is missing, misshapen or not finite, else for the first that is too many.
    pub fn check(&self, network: &Network) -> Result<(), TensorError> {
        let specs = network.tensors();
        for spec in &specs {
            let tensor = self.get(&spec.name)?;
            if tensor.shape != spec.shape {
                let (expected, got) = (spec.shape.clone(), tensor.shape.clone());
                return Err(TensorError::Shape { name: spec.name.clone(), expected, got });
            }
            if tensor.data.iter().any(|x| !x.is_finite()) {
                return Err(TensorError::NotFinite { name: spec.name.clone() });
            }
        }
        let known: std::collections::BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        match self.0.keys().find(|name| !known.contains(name.as_str())) {
            Some(name) => Err(TensorError::Unknown { name: name.clone() }),
            None => Ok(()),
        }
    }
}

/// Why tensors do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// Number of elements and shape disagree.
    #[error("a tensor of shape {shape:?} cannot have {got} elements")]
    Elements {
        /// The shape.
        shape: Vec<usize>,
        /// Number of elements given.
        got: usize,
    },
    /// The network has a tensor that the weights have not.
    #[error("tensor `{name}` is missing")]
    Missing {
        /// Its name.
        name: String,
    },
    /// The weights have a tensor that the network has not.
    #[error("tensor `{name}` does not belong to the network")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// A tensor of another shape.
    #[error("tensor `{name}`: expected shape {expected:?}, got {got:?}")]
    Shape {
        /// Its name.
        name: String,
        /// The network's shape.
        expected: Vec<usize>,
        /// The tensor's shape.
        got: Vec<usize>,
    },
    /// Infinity or NaN.
    #[error("tensor `{name}` has elements that are not finite")]
    NotFinite {
        /// Its name.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conv2d, Op, Shape};

    #[test]
    fn weights_are_checked_against_the_network() {
        let mut network = Network::new(Shape::chw(1, 2, 2));
        network.add("conv", Op::Conv(Conv2d::new(1, 2, 1)), &[network.input()]).unwrap();
        let mut weights = Weights::new();
        assert_eq!(weights.check(&network), Err(TensorError::Missing { name: "conv.weight".into() }));
        weights.insert("conv.weight", Tensor::zeros(&[2, 1]));
        assert!(matches!(weights.check(&network), Err(TensorError::Shape { .. })));
        weights.insert("conv.weight", Tensor::new(vec![2, 1, 1, 1], vec![1.0, f64::NAN]).unwrap());
        assert!(matches!(weights.check(&network), Err(TensorError::NotFinite { .. })));
        weights.insert("conv.weight", Tensor::zeros(&[2, 1, 1, 1]));
        assert_eq!(weights.check(&network), Ok(()));
        weights.insert("conv.bias", Tensor::zeros(&[2]));
        assert_eq!(weights.check(&network), Err(TensorError::Unknown { name: "conv.bias".into() }));
    }

    #[test]
    fn element_counts_must_agree() {
        assert!(Tensor::new(vec![2, 3], vec![0.0; 5]).is_err());
        assert!(Tensor::new(vec![usize::MAX, 2], vec![]).is_err());
    }
}
