//! The check of what was written: the file itself is run beside the trained network.

use gram_ir::{Network, Tensor, Weights, reference};

use super::from_onnx;
use crate::ExportError;

/// Largest difference that is allowed, relative to the largest output: what f32 engines agree to on real networks, with room.
pub const DEFAULT_TOLERANCE: f64 = 1e-4;

/// Two outputs that are closer than this, relative to the largest output, are a tie that no f32 engine can be trusted to break.
const TIE: f64 = 1e-6;

/// What the check of an exported model found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CheckReport {
    /// Number of images.
    pub n_images: usize,
    /// Largest difference of any output of any image.
    pub max_abs_difference: f64,
    /// The same, divided by the largest absolute output of the trained network.
    pub max_relative_difference: f64,
    /// Number of images for which both give the same class; ties within 1e-6 of the largest output count as the same.
    pub n_argmax_equal: usize,
}

/// Reads `bytes` back, runs the file's network and the trained one on `images`, and compares.
///
/// Both are run by the reference executor in f64, the trained network as it is, with its batch norms.
///
/// # Shapes
/// `images` is `[n, c, h, w]` with the network's `[c, h, w]`, normalised as in training.
/// # Errors
/// [`ExportError::Differs`] if an output differs by more than `tolerance` times the largest absolute output of the trained network, or
/// an image gets another class; [`ExportError::Read`] or [`ExportError::OtherShapes`] if the file holds no such network;
/// [`ExportError::NoImages`]; [`ExportError::Run`] if the trained network cannot be run.
/// # Complexity
/// Two runs of the reference executor, which is slow: some dozens of images are enough.
pub fn check_onnx(
    bytes: &[u8],
    network: &Network,
    weights: &Weights,
    images: &Tensor,
    tolerance: f64,
) -> Result<CheckReport, ExportError> {
    let expected = reference::run(network, weights, images)?;
    let exported = from_onnx(bytes)?;
    let (input, output) = (network.input_shape(), network.output_shape());
    let (got_input, got_output) = (exported.network.input_shape(), exported.network.output_shape());
    if (got_input, got_output) != (input, output) {
        return Err(ExportError::OtherShapes { input, output, got_input, got_output });
    }
    let got = reference::run(&exported.network, &exported.weights, images)?;
    if expected.data().is_empty() {
        return Err(ExportError::NoImages);
    }
    let report = compare(expected.data(), got.data(), output.elements());
    // Not `>`: a difference that is NaN must not pass.
    let is_close = report.max_relative_difference <= tolerance;
    if is_close && report.n_argmax_equal == report.n_images {
        Ok(report)
    } else {
        Err(ExportError::Differs { report, tolerance })
    }
}

/// Compares outputs, `n_outputs` for each image.
fn compare(expected: &[f64], got: &[f64], n_outputs: usize) -> CheckReport {
    let largest = expected.iter().fold(0.0, |largest, x| max_or_nan(largest, x.abs()));
    let difference = expected.iter().zip(got).fold(0.0, |largest, (a, b)| max_or_nan(largest, (a - b).abs()));
    let is_equal =
        |(expected, got): &(&[f64], &[f64])| expected[argmax(got)] >= expected[argmax(expected)] - TIE * largest;
    CheckReport {
        n_images: expected.len() / n_outputs,
        max_abs_difference: difference,
        max_relative_difference: if difference == 0.0 { 0.0 } else { difference / largest },
        n_argmax_equal: expected.chunks(n_outputs).zip(got.chunks(n_outputs)).filter(is_equal).count(),
    }
}

fn max_or_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Position of the largest number, the first of equal ones.
fn argmax(numbers: &[f64]) -> usize {
    (0..numbers.len()).rev().max_by(|&a, &b| numbers[a].total_cmp(&numbers[b])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_by_hand() {
        // Two images of two classes; the largest output is 4, the largest difference 1, and the second image changes its class.
        let report = compare(&[1.0, -4.0, 2.0, 1.5], &[1.0, -4.0, 2.0, 2.5], 2);
        let expected =
            CheckReport { n_images: 2, max_abs_difference: 1.0, max_relative_difference: 0.25, n_argmax_equal: 1 };
        assert_eq!(report, expected);
    }

    #[test]
    fn ties_may_break_either_way() {
        assert_eq!(compare(&[1.0, 1.0 + 1e-9], &[1.0 + 1e-9, 1.0], 2).n_argmax_equal, 1);
        assert_eq!(compare(&[1.0, 1.0 + 1e-4], &[1.0 + 1e-4, 1.0], 2).n_argmax_equal, 0);
        assert_eq!(argmax(&[1.0, 2.0, 2.0]), 1);
    }

    #[test]
    fn zeros_and_nan() {
        assert_eq!(compare(&[0.0, 0.0], &[0.0, 0.0], 2).max_relative_difference, 0.0);
        assert!(compare(&[0.0, 0.0], &[0.0, 1e-9], 2).max_relative_difference.is_infinite());
        assert!(compare(&[0.0, 1.0], &[f64::NAN, 1.0], 2).max_relative_difference.is_nan());
    }
}
