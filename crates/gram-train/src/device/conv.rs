//! Convolutions as matrix products, depthwise ones as sums of shifted maps.
//!
//! candle's own `conv2d` makes one convolution of each group and takes gradients through a transposed convolution that works pixel by pixel.

use candle_core::{Result, Tensor};
use gram_ir::Conv2d;

use super::sums::{channel_sums, sum};
use super::tape::{Back, Saved};
use super::windows::Windows;

/// What the gradient of a convolution needs.
pub(super) struct SavedConv {
    conv: Conv2d,
    windows: Windows,
    x: Tensor,
    weight: Tensor,
    bias: bool,
}

/// The convolution of `x`.
///
/// # Shapes
/// `x` is `[c_in, n, h, w]`, the output `[c_out, n, h', w']`; `weight` has [`Conv2d::weight_shape`] or the same elements.
pub(super) fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, conv: &Conv2d) -> Result<(Tensor, SavedConv)> {
    let (_, _, h, w) = x.dims4()?;
    let windows = Windows::of_conv(conv, [h, w])?;
    let weight = weight.reshape(conv.weight_shape().to_vec())?;
    let saved = SavedConv { conv: *conv, windows, x: x.clone(), weight, bias: bias.is_some() };
    let y = if conv.is_depthwise() { saved.depthwise()? } else { saved.grouped()? };
    let y = match bias {
        Some(bias) => y.broadcast_add(&bias.reshape(((), 1, 1, 1))?)?,
        None => y,
    };
    Ok((y, saved))
}

impl SavedConv {
    fn depthwise(&self) -> Result<Tensor> {
        let taps = self.windows.read(&self.x, 0.0)?;
        self.weighted_sum(|tap| taps.get(tap))
    }

    /// `Σ map(tap) · weight[tap]`, channel by channel.
    fn weighted_sum(&self, map: impl Fn([usize; 2]) -> Result<Tensor>) -> Result<Tensor> {
        let terms = self.windows.taps().map(|tap| {
            let [row, column] = tap;
            map(tap)?.broadcast_mul(&self.weight.narrow(2, row, 1)?.narrow(3, column, 1)?)
        });
        sum(terms)
    }

    fn grouped(&self) -> Result<Tensor> {
        let [h, w] = self.windows.output();
        let (_, n, _, _) = self.x.dims4()?;
        let outputs = (0..self.conv.groups).map(|group| {
            let columns = self.windows.read(&self.input(group)?, 0.0)?.matrix()?;
            // [c_out, c_in, k, k] to [c_out, k · k · c_in], the order of the columns.
            let weight = self.weights(group)?.permute((0, 2, 3, 1))?;
            let rows = weight.dim(0)?;
            weight.reshape((rows, ()))?.matmul(&columns)?.reshape((rows, n, h, w))
        });
        Tensor::cat(&outputs.collect::<Result<Vec<_>>>()?, 0)
    }

    /// The input channels of a group.
    fn input(&self, group: usize) -> Result<Tensor> {
        let c_in = self.conv.c_in / self.conv.groups;
        self.x.narrow(0, group * c_in, c_in)
    }

    /// The weights of a group.
    fn weights(&self, group: usize) -> Result<Tensor> {
        let c_out = self.conv.c_out / self.conv.groups;
        self.weight.narrow(0, group * c_out, c_out)
    }

    fn depthwise_gradients(&self, g: &Tensor, wanted: bool) -> Result<(Option<Tensor>, Tensor)> {
        let taps = self.windows.read(&self.x, 0.0)?;
        let weights = self.windows.taps().map(|tap| channel_sums(&(taps.get(tap)? * g)?));
        let weight = Tensor::stack(&weights.collect::<Result<Vec<_>>>()?, 1)?;
        let readers = wanted.then(|| self.windows.readers(g)).transpose()?;
        let x = readers.map(|readers| self.weighted_sum(|tap| readers.get(tap))).transpose()?;
        Ok((x, weight))
    }

    fn grouped_gradients(&self, g: &Tensor, wanted: bool) -> Result<(Option<Tensor>, Tensor)> {
        let c_out = self.conv.c_out / self.conv.groups;
        let (mut inputs, mut weights) = (Vec::new(), Vec::new());
        for group in 0..self.conv.groups {
            let g = g.narrow(0, group * c_out, c_out)?;
            weights.push(self.weight_gradient(group, &g)?);
            if wanted {
                inputs.push(self.input_gradient(group, &g)?);
            }
        }
        let x = wanted.then(|| Tensor::cat(&inputs, 0)).transpose()?;
        Ok((x, Tensor::cat(&weights, 0)?))
    }

    fn weight_gradient(&self, group: usize, g: &Tensor) -> Result<Tensor> {
        let Conv2d { kernel, c_in, groups, .. } = self.conv;
        let c_out = g.dim(0)?;
        let columns = self.windows.read(&self.input(group)?, 0.0)?.matrix()?;
        let weight = g.reshape((c_out, ()))?.matmul(&columns.t()?)?;
        weight.reshape((c_out, kernel, kernel, c_in / groups))?.permute((0, 3, 1, 2))?.contiguous()
    }

    fn input_gradient(&self, group: usize, g: &Tensor) -> Result<Tensor> {
        let (_, n, h, w) = self.x.dims4()?;
        let weight = self.weights(group)?.permute((1, 2, 3, 0))?;
        let c_in = weight.dim(0)?;
        weight.reshape((c_in, ()))?.matmul(&self.windows.readers(g)?.matrix()?)?.reshape((c_in, n, h, w))
    }
}

impl Saved for SavedConv {
    fn backward(&self, g: &Tensor, wanted: bool) -> Result<Back> {
        let (x, weight) = if self.conv.is_depthwise() {
            self.depthwise_gradients(g, wanted)
        } else {
            self.grouped_gradients(g, wanted)
        }?;
        let mut params = vec![weight];
        if self.bias {
            params.push(channel_sums(g)?);
        }
        Ok(Back { inputs: vec![x], params })
    }
}
