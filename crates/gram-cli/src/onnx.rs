//! ONNX files of trained models: written, read back, compared with the model on validation images, then kept.

use std::path::Path;

use gram_data::Splits;
use gram_export::{CheckReport, DEFAULT_TOLERANCE, ExportError, OnnxMetadata, check_onnx, to_onnx};
use gram_ir::{Network, Weights};

use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::{Preprocessing, reference_images, save};

/// Most validation images that a file is checked on; the reference executor is slow.
const CHECK_IMAGES: usize = 64;
/// MACs that the check may spend on one of the two networks, so that large ones are checked on fewer images.
const CHECK_MACS: u64 = 2_000_000_000;

/// Writes `model` as ONNX if the file computes what the model computes.
///
/// # Errors
/// Exit code 6 if it does not; no file is left then.
pub(crate) fn export(
    path: &Path,
    name: &str,
    weights: &Weights,
    network: &Network,
    preprocessing: &Preprocessing,
    splits: &Splits,
) -> Result<CheckReport> {
    let normalisation = &preprocessing.normalisation;
    let mut meta = OnnxMetadata::new(name);
    meta.set_classes(&preprocessing.classes);
    let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    meta.set_normalisation(&wide(&normalisation.mean), &wide(&normalisation.std));
    let bytes = to_onnx(network, weights, &meta).or_fail_with(Kind::Data, "writing ONNX")?;
    let affordable = usize::try_from(CHECK_MACS / network.cost().macs.0.max(1)).unwrap_or(usize::MAX);
    let images = reference_images(&splits.validation, normalisation, CHECK_IMAGES.min(affordable.max(1)))?;
    let report = check_onnx(&bytes, network, weights, &images, DEFAULT_TOLERANCE).map_err(export_failure)?;
    save(path, &bytes)?;
    Ok(report)
}

fn export_failure(error: ExportError) -> Failure {
    let kind = match error {
        ExportError::Differs { .. } | ExportError::OtherShapes { .. } | ExportError::Read(_) => Kind::ExportDiffers,
        ExportError::NoImages => Kind::Data,
        _ => Kind::Internal,
    };
    Failure { kind, error: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_computes_something_else_is_exit_code_6() {
        let report =
            CheckReport { n_images: 2, max_abs_difference: 1.0, max_relative_difference: 0.5, n_argmax_equal: 1 };
        let differs = export_failure(ExportError::Differs { report, tolerance: DEFAULT_TOLERANCE });
        assert_eq!(differs.kind as u8, 6);
        assert_eq!(export_failure(ExportError::NoImages).kind, Kind::Data);
    }
}
