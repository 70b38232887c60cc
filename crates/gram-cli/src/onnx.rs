//! ONNX files of trained models: written, read back, compared with the model on validation images, then kept.

use std::path::Path;

use gram_data::Splits;
use gram_export::{CheckReport, DEFAULT_TOLERANCE, ExportError, OnnxMetadata, check_onnx, to_onnx};
use gram_ir::{Concat, Dtype, MemoryModel, Network, Separable, Weights};

use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::{Preprocessing, reference_images, save};

/// Most validation images that a file is checked on; the reference executor is slow.
const CHECK_IMAGES: usize = 64;
/// MACs that the check may spend on one of the two networks, so that large ones are checked on fewer images.
const CHECK_MACS: u64 = 2_000_000_000;

/// Peak bytes of the engines that the files are for: f32, concatenations copied, the halves of separable convolutions one after the other.
const ENGINE: MemoryModel =
    MemoryModel { dtype: Dtype::F32, concat: Concat::Copy, partial: false, separable: Separable::Split };

/// Writes `model` as ONNX if the file computes what the model computes.
///
/// The file's nodes stand in the order in which feature maps take the least memory.
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
    let scheduled = scheduled(network)?;
    let bytes = to_onnx(&scheduled, weights, &meta).or_fail_with(Kind::Data, "writing ONNX")?;
    let affordable = usize::try_from(CHECK_MACS / network.cost().macs.0.max(1)).unwrap_or(usize::MAX);
    let images = reference_images(&splits.validation, normalisation, CHECK_IMAGES.min(affordable.max(1)))?;
    let report = check_onnx(&bytes, network, weights, &images, DEFAULT_TOLERANCE).map_err(export_failure)?;
    save(path, &bytes)?;
    Ok(report)
}

/// The network with its nodes in the order of the least peak; names, and so weights, stay.
fn scheduled(network: &Network) -> Result<Network> {
    let plan = gram_memory::plan(network, &ENGINE).or_fail_with(Kind::Data, "scheduling")?;
    gram_memory::reorder(network, &plan).or_fail(Kind::Internal)
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

    /// The shipped SwiftNet takes less in the planned order than in its own, and the file keeps to that order.
    #[test]
    fn files_follow_the_schedule() {
        let network = gram_ir::preset("swiftnet-vww", None, None).unwrap().lower().unwrap();
        let plan = gram_memory::plan(&network, &ENGINE).unwrap();
        let order = scheduled(&network).unwrap();
        let bytes = to_onnx(&order, &Weights::arbitrary(&network, 1), &OnnxMetadata::new("scheduled")).unwrap();
        let read = gram_export::from_onnx(&bytes).unwrap().network;
        let in_file = gram_memory::plan(&read, &ENGINE).unwrap();
        assert_eq!((in_file.plain_peak_bytes, in_file.peak_bytes), (plan.peak_bytes, plan.peak_bytes));
        assert!(plan.peak_bytes < plan.plain_peak_bytes);
    }

    #[test]
    fn a_file_that_computes_something_else_is_exit_code_6() {
        let report =
            CheckReport { n_images: 2, max_abs_difference: 1.0, max_relative_difference: 0.5, n_argmax_equal: 1 };
        let differs = export_failure(ExportError::Differs { report, tolerance: DEFAULT_TOLERANCE });
        assert_eq!(differs.kind as u8, 6);
        assert_eq!(export_failure(ExportError::NoImages).kind, Kind::Data);
    }
}
