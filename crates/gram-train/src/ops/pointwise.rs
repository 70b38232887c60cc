//! Activations, sums and concatenation.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, bail};
use gram_ir::Activation;

use super::access::{by_dtype, dense, storage, tensor, values};
use super::operator::{Operator, apply};
use crate::kernels::{activation as kernel, join};

/// The activation of every element; its slope is that of the flat side at kinks (0 at 0 for ReLU), as in torch.
///
/// # Errors
/// If the tensor is not f32 or f64 on the CPU.
pub fn activation(x: &Tensor, activation: Activation) -> Result<Tensor> {
    apply(ActOp(activation), &[x])
}

/// The element-wise sum of tensors of one shape.
///
/// # Errors
/// If there are none, their shapes differ, or they are not f32 or f64 of one type on the CPU.
pub fn add(terms: &[Tensor]) -> Result<Tensor> {
    joined(terms, AddOp)
}

/// Concatenation of `[n, c_i, h, w]` maps along channels.
///
/// # Errors
/// If there are no maps, their shapes differ in other than channels, or they are not f32 or f64 of one type on the CPU.
pub fn concat(maps: &[Tensor]) -> Result<Tensor> {
    joined(maps, ConcatOp)
}

/// An associative operator on any number of tensors, as a tree: candle's tape takes three at most.
fn joined<O: Operator + Copy + 'static>(tensors: &[Tensor], op: O) -> Result<Tensor> {
    match tensors {
        [] => bail!("{}: no tensors", op.name()),
        [one] => Ok(one.clone()),
        few if few.len() <= 3 => apply(op, &few.iter().collect::<Vec<_>>()),
        many => {
            let parts = many.chunks(many.len().div_ceil(3)).map(|part| joined(part, op));
            joined(&parts.collect::<Result<Vec<_>>>()?, op)
        }
    }
}

/// Activation of one input.
#[derive(Clone, Copy)]
pub(crate) struct ActOp(pub(crate) Activation);

impl Operator for ActOp {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn forward(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let &[(x, lx)] = inputs else { bail!("{}: {} inputs", self.0, inputs.len()) };
        by_dtype!(x.dtype(), self.0, T => Ok(storage(kernel::forward::<T>(self.0, &dense(x, lx)?), lx.shape().clone())))
    }

    fn backward(&self, inputs: &[&Tensor], g: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let &[x] = inputs else { bail!("{}: {} inputs", self.0, inputs.len()) };
        by_dtype!(g.dtype(), self.0, T => {
            Ok(vec![Some(tensor(kernel::backward::<T>(self.0, &values(x)?, &values(g)?), x.shape())?)])
        })
    }
}

/// Sum of one or more inputs of one shape.
#[derive(Clone, Copy)]
pub(crate) struct AddOp;

impl Operator for AddOp {
    fn name(&self) -> &'static str {
        "add"
    }

    fn forward(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let Some(&(first, layout)) = inputs.first() else { bail!("add: no terms") };
        if let Some((_, other)) = inputs.iter().find(|(_, other)| other.shape() != layout.shape()) {
            bail!("add: {:?} and {:?}", layout.dims(), other.dims());
        }
        by_dtype!(first.dtype(), "add", T => {
            let terms: Vec<_> = inputs.iter().map(|(s, l)| dense::<T>(s, l)).collect::<Result<_>>()?;
            let slices: Vec<&[T]> = terms.iter().map(|term| &**term).collect();
            Ok(storage(join::sum(&slices), layout.shape().clone()))
        })
    }

    fn backward(&self, inputs: &[&Tensor], g: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(g.clone()); inputs.len()])
    }
}

/// Concatenation of one or more maps along channels.
#[derive(Clone, Copy)]
pub(crate) struct ConcatOp;

impl Operator for ConcatOp {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn forward(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let Some(&(first, layout)) = inputs.first() else { bail!("concat: no maps") };
        let (n, _, h, w) = layout.shape().dims4()?;
        let mut lens = Vec::with_capacity(inputs.len());
        for (_, other) in inputs {
            let (other_n, other_c, other_h, other_w) = other.shape().dims4()?;
            if (other_n, other_h, other_w) != (n, h, w) {
                bail!("concat: {:?} and {:?}", layout.dims(), other.dims());
            }
            lens.push(other_c * h * w);
        }
        let channels = lens.iter().sum::<usize>() / (h * w).max(1);
        by_dtype!(first.dtype(), "concat", T => {
            let parts: Vec<_> = inputs.iter().map(|(s, l)| dense::<T>(s, l)).collect::<Result<_>>()?;
            let slices: Vec<&[T]> = parts.iter().map(|part| &**part).collect();
            Ok(storage(join::concat(n, &slices, &lens), (n, channels, h, w)))
        })
    }

    fn backward(&self, inputs: &[&Tensor], g: &Tensor, wanted: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let n = g.dim(0)?;
        let mut offset = 0;
        let mut gradients = Vec::with_capacity(inputs.len());
        by_dtype!(g.dtype(), "concat", T => {
            let g = values::<T>(g)?;
            for (part, &wanted) in inputs.iter().zip(wanted) {
                let len = part.elem_count() / n.max(1);
                let gradient = wanted.then(|| tensor(join::part(n, &g, offset, len), part.shape()));
                gradients.push(gradient.transpose()?);
                offset += len;
            }
        });
        Ok(gradients)
    }
}
