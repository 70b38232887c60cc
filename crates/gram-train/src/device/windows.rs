//! Windows over maps as views: what a tap of a kernel reads, and what each pixel is read as.
//!
//! Maps are `[c, n, h, w]`: with channels first a 1x1 convolution is one matrix product, a concatenation one copy and a sum over a channel a
//! sum over what lies together.

use candle_core::{Result, Tensor, bail};
use gram_ir::{Conv2d, Pool};

/// Dimensions of height and width in `[c, n, h, w]`.
const AXES: [usize; 2] = [2, 3];

/// Windows along one axis.
#[derive(Clone, Copy, Debug)]
struct Axis {
    kernel: usize,
    stride: usize,
    dilation: usize,
    padding: usize,
    input: usize,
    output: usize,
}

impl Axis {
    fn new(kernel: usize, stride: usize, dilation: usize, padding: usize, input: usize) -> Result<Self> {
        let reach = dilation * (kernel - 1);
        let Some(slack) = (input + 2 * padding).checked_sub(reach + 1) else {
            bail!("a window of {} pixels does not fit into {input} padded by {padding}", reach + 1);
        };
        Ok(Self { kernel, stride, dilation, padding, input, output: slack / stride + 1 })
    }

    /// Pixels from the first tap to the last one.
    fn reach(&self) -> usize {
        self.dilation * (self.kernel - 1)
    }

    /// Pixels of one phase: those whose distance is the stride.
    fn phase_len(&self) -> usize {
        self.reach() / self.stride + self.output
    }

    /// Where tap `tap` of the first window is: its phase, and its place in it.
    fn phase(&self, tap: usize) -> (usize, usize) {
        let at = tap * self.dilation;
        (at % self.stride, at / self.stride)
    }
}

/// All windows over a map of one size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    rows: Axis,
    columns: Axis,
}

impl Windows {
    /// Those of a convolution of `h`x`w` pixels.
    pub(super) fn of_conv(conv: &Conv2d, [h, w]: [usize; 2]) -> Result<Self> {
        let axis = |input| Axis::new(conv.kernel, conv.stride, conv.dilation, conv.padding, input);
        Ok(Self { rows: axis(h)?, columns: axis(w)? })
    }

    /// Those of a pool of `h`x`w` pixels.
    pub(super) fn of_pool(pool: &Pool, [h, w]: [usize; 2]) -> Result<Self> {
        let axis = |input| Axis::new(pool.kernel, pool.stride, 1, pool.padding, input);
        Ok(Self { rows: axis(h)?, columns: axis(w)? })
    }

    /// Height and width of the output.
    pub(super) fn output(&self) -> [usize; 2] {
        [self.rows.output, self.columns.output]
    }

    /// All taps, row by row.
    pub(super) fn taps(&self) -> impl Iterator<Item = [usize; 2]> + use<> {
        let (rows, columns) = (self.rows.kernel, self.columns.kernel);
        (0..rows).flat_map(move |row| (0..columns).map(move |column| [row, column]))
    }

    /// What the taps read of `x`, `fill` outside of it.
    pub(super) fn read(&self, x: &Tensor, fill: f64) -> Result<Taps> {
        let (mut padded, mut dims) = (x.clone(), x.dims().to_vec());
        dims.truncate(AXES[0]);
        for (axis, dim) in [self.rows, self.columns].into_iter().zip(AXES) {
            padded = frame(&padded, dim, axis.padding as isize, axis.phase_len() * axis.stride, fill)?;
            dims.extend([axis.phase_len(), axis.stride]);
        }
        Ok(Taps { windows: *self, phases: padded.reshape(dims)? })
    }

    /// The same seen from the input: which output pixel reads each of its pixels by each tap, of `g`, which is of the output's size.
    pub(super) fn readers(&self, g: &Tensor) -> Result<Readers> {
        let mut spread = g.clone();
        for (axis, dim) in [self.rows, self.columns].into_iter().zip(AXES) {
            let lead = axis.reach() as isize - axis.padding as isize;
            spread = frame(&dilate(&spread, dim, axis.stride)?, dim, lead, axis.input + axis.reach(), 0.0)?;
        }
        Ok(Readers { windows: *self, spread })
    }
}

/// What the taps of all windows read.
#[derive(Clone, Debug)]
pub(super) struct Taps {
    windows: Windows,
    /// `[c, n, rows of a phase, phases, columns of a phase, phases]`.
    phases: Tensor,
}

impl Taps {
    /// What tap `[row, column]` reads, one pixel for each window: a view `[c, n, h_out, w_out]`.
    pub(super) fn get(&self, [row, column]: [usize; 2]) -> Result<Tensor> {
        let Windows { rows, columns } = self.windows;
        let ((row_phase, top), (column_phase, left)) = (rows.phase(row), columns.phase(column));
        let rows = self.phases.narrow(2, top, rows.output)?.narrow(3, row_phase, 1)?.squeeze(3)?;
        rows.narrow(3, left, columns.output)?.narrow(4, column_phase, 1)?.squeeze(4)
    }

    /// All of them on top of each other: a matrix `[taps · c, n · h_out · w_out]`.
    pub(super) fn matrix(&self) -> Result<Tensor> {
        let taps = self.windows.taps().map(|tap| self.get(tap)).collect::<Result<Vec<_>>>()?;
        stacked(&taps)
    }
}

/// Output pixels as the input's pixels see them.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    windows: Windows,
    /// `[c, n, h + reach, w + reach]`, zero where nobody reads.
    spread: Tensor,
}

impl Readers {
    /// For each input pixel the output pixel that reads it by tap `[row, column]`, else 0: a view `[c, n, h, w]`.
    pub(super) fn get(&self, [row, column]: [usize; 2]) -> Result<Tensor> {
        let Windows { rows, columns } = self.windows;
        let start = |axis: Axis, tap: usize| axis.reach() - tap * axis.dilation;
        self.spread.narrow(2, start(rows, row), rows.input)?.narrow(3, start(columns, column), columns.input)
    }

    /// All of them on top of each other: a matrix `[taps · c, n · h · w]`.
    pub(super) fn matrix(&self) -> Result<Tensor> {
        let taps = self.windows.taps().map(|tap| self.get(tap)).collect::<Result<Vec<_>>>()?;
        stacked(&taps)
    }
}

fn stacked(taps: &[Tensor]) -> Result<Tensor> {
    let all = Tensor::cat(taps, 0)?;
    let rows = all.dim(0)?;
    let columns = all.elem_count() / rows;
    all.reshape((rows, columns))
}

/// `len` pixels along `dim`, of which number `lead` is the first of `x`; `fill` where there is none.
fn frame(x: &Tensor, dim: usize, lead: isize, len: usize, fill: f64) -> Result<Tensor> {
    let (before, skipped) = (lead.max(0) as usize, lead.min(0).unsigned_abs());
    let taken = x.dim(dim)?.saturating_sub(skipped).min(len.saturating_sub(before));
    let filled = |n: usize| {
        let mut dims = x.dims().to_vec();
        dims[dim] = n;
        let zeros = Tensor::zeros(dims, x.dtype(), x.device())?;
        if fill == 0.0 { Ok(zeros) } else { zeros.affine(1.0, fill) }
    };
    if taken == 0 {
        return filled(len);
    }
    let x = x.narrow(dim, skipped, taken)?;
    let mut parts = Vec::with_capacity(3);
    if before > 0 {
        parts.push(filled(before)?);
    }
    parts.push(x);
    if before + taken < len {
        parts.push(filled(len - before - taken)?);
    }
    Tensor::cat(&parts, dim)
}

/// Zeros behind each pixel along `dim`, so that pixels are `stride` apart.
fn dilate(x: &Tensor, dim: usize, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.clone());
    }
    let mut dims = x.dims().to_vec();
    dims[dim] *= stride;
    x.unsqueeze(dim + 1)?.pad_with_zeros(dim + 1, 0, stride - 1)?.reshape(dims)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// One row of pixels `1, 2, … n`.
    fn row(n: usize) -> Tensor {
        Tensor::arange(1.0, n as f64 + 1.0, &Device::Cpu).unwrap().reshape((1, 1, 1, n)).unwrap()
    }

    fn numbers(x: &Tensor) -> Vec<f64> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn windows(conv: Conv2d, w: usize) -> Windows {
        Windows { rows: Axis::new(1, 1, 1, 0, 1).unwrap(), ..Windows::of_conv(&conv, [w, w]).unwrap() }
    }

    #[test]
    fn taps_and_readers_by_hand() {
        // Five pixels padded by 1, windows of taps 2 apart, stride 2: 0 1 2 3 4 5 0 is read at 0 2 4, 2 4 6.
        let conv = Conv2d { dilation: 2, padding: 1, stride: 2, ..Conv2d::new(1, 1, 3) };
        let windows = windows(conv, 5);
        assert_eq!(windows.output(), [1, 2]);
        let taps = windows.read(&row(5), 0.0).unwrap();
        let read = |tap: usize| numbers(&taps.get([0, tap]).unwrap());
        assert_eq!([read(0), read(1), read(2)], [[0.0, 2.0], [2.0, 4.0], [4.0, 0.0]]);
        assert_eq!(numbers(&taps.matrix().unwrap()), [0.0, 2.0, 2.0, 4.0, 4.0, 0.0]);
        // Pixels 2 and 4 are read by window 1 (tap 1, tap 2) and window 2 (tap 0, tap 1).
        let readers = windows.readers(&row(2)).unwrap();
        let of = |tap: usize| numbers(&readers.get([0, tap]).unwrap());
        assert_eq!(of(0), [0.0, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!(of(1), [0.0, 1.0, 0.0, 2.0, 0.0]);
        assert_eq!(of(2), [0.0, 0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn padding_beyond_the_kernel_is_read_and_has_no_readers() {
        let windows = windows(Conv2d { padding: 2, ..Conv2d::new(1, 1, 1) }, 2);
        let taps = windows.read(&row(2), 9.0).unwrap();
        assert_eq!(numbers(&taps.get([0, 0]).unwrap()), [9.0, 9.0, 1.0, 2.0, 9.0, 9.0]);
        let readers = windows.readers(&row(6)).unwrap();
        assert_eq!(numbers(&readers.get([0, 0]).unwrap()), [3.0, 4.0]);
    }

    #[test]
    fn frames_of_nothing_are_filled() {
        assert_eq!(numbers(&frame(&row(2), 3, -2, 3, 0.0).unwrap()), [0.0; 3]);
        assert_eq!(numbers(&frame(&row(2), 3, 1, 2, 5.0).unwrap()), [5.0, 1.0]);
    }

    #[test]
    fn windows_that_do_not_fit_are_refused() {
        let conv = Conv2d { padding: 0, ..Conv2d::new(1, 1, 3) };
        assert!(Windows::of_conv(&conv, [3, 2]).is_err());
    }
}
