//! Activations, and what joins or averages whole maps.

use candle_core::{Result, Tensor};
use gram_ir::Activation;

use super::sums::sum;
use super::tape::{Back, Saved};

/// The slope of an activation at each element.
pub(super) struct Slope(Tensor);

/// The activation of every element and its slope, at a kink that of the flat side, as torch has it (candle's own ReLU has slope 1 at 0).
///
/// NaN stays NaN: a diverged network must not look like a dead one. candle's `relu` gives 0 for it, so it only makes masks here.
pub(super) fn activation(x: &Tensor, activation: Activation) -> Result<(Tensor, Slope)> {
    match activation {
        Activation::Relu => {
            let slope = is_above(x, 0.0)?;
            Ok(((x * &slope)?, Slope(slope)))
        }
        Activation::Relu6 => {
            let below = is_below(x, 6.0)?;
            let slope = (is_above(x, 0.0)? * &below)?;
            Ok((((x * &slope)? + below.affine(-6.0, 6.0)?)?, Slope(slope)))
        }
        Activation::HardSwish => {
            let below = is_below(x, 3.0)?;
            let middle = (is_above(x, -3.0)? * &below)?;
            let above = below.affine(-1.0, 1.0)?;
            let gate = ((x.affine(1.0 / 6.0, 0.5)? * &middle)? + &above)?;
            let slope = ((x.affine(1.0 / 3.0, 0.5)? * middle)? + above)?;
            Ok(((x * gate)?, Slope(slope)))
        }
    }
}

/// 1 where `x > limit`, 0 elsewhere and for NaN.
fn is_above(x: &Tensor, limit: f64) -> Result<Tensor> {
    let x = if limit == 0.0 { x.clone() } else { x.affine(1.0, -limit)? };
    x.relu()?.sign()
}

/// 1 where `x < limit`, 0 elsewhere and for NaN.
fn is_below(x: &Tensor, limit: f64) -> Result<Tensor> {
    x.affine(-1.0, limit)?.relu()?.sign()
}

impl Saved for Slope {
    fn backward(&self, g: &Tensor, _: bool) -> Result<Back> {
        Ok(Back::of_input((g * &self.0)?))
    }
}

/// Channels of the inputs of a concatenation.
pub(super) struct SavedConcat(Vec<usize>);

/// All inputs `[c, n, h, w]` one behind the other along channels.
pub(super) fn concat(inputs: &[Tensor]) -> Result<(Tensor, SavedConcat)> {
    let channels = inputs.iter().map(|input| input.dim(0)).collect::<Result<_>>()?;
    Ok((Tensor::cat(inputs, 0)?, SavedConcat(channels)))
}

impl Saved for SavedConcat {
    fn backward(&self, g: &Tensor, _: bool) -> Result<Back> {
        let mut start = 0;
        let part = |&channels: &usize| {
            let part = g.narrow(0, start, channels)?;
            start += channels;
            Ok(Some(part))
        };
        Ok(Back { inputs: self.0.iter().map(part).collect::<Result<_>>()?, params: Vec::new() })
    }
}

/// Number of terms of a sum.
pub(super) struct SavedAdd(usize);

/// The sum of all inputs.
pub(super) fn add(inputs: &[Tensor]) -> Result<(Tensor, SavedAdd)> {
    Ok((sum(inputs.iter().cloned().map(Ok))?, SavedAdd(inputs.len())))
}

impl Saved for SavedAdd {
    fn backward(&self, g: &Tensor, _: bool) -> Result<Back> {
        Ok(Back { inputs: vec![Some(g.clone()); self.0], params: Vec::new() })
    }
}

/// Height and width of what was averaged.
pub(super) struct SavedGlobal([usize; 2]);

/// The mean over all pixels: `[c, n, h, w]` to `[c, n, 1, 1]`.
pub(super) fn global_avg_pool(x: &Tensor) -> Result<(Tensor, SavedGlobal)> {
    let (c, n, h, w) = x.dims4()?;
    let sums = x.reshape((c, n, h * w))?.sum(2)?;
    Ok(((sums / (h * w) as f64)?.reshape((c, n, 1, 1))?, SavedGlobal([h, w])))
}

impl Saved for SavedGlobal {
    fn backward(&self, g: &Tensor, _: bool) -> Result<Back> {
        let ((c, n, _, _), [h, w]) = (g.dims4()?, self.0);
        let share = (g / (h * w) as f64)?;
        Ok(Back::of_input(share.broadcast_as((c, n, h, w))?.contiguous()?))
    }
}
