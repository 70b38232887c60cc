//! `gram export MODELDIR|ARCH --format F -o FILE`.

use std::collections::BTreeMap;
use std::path::Path;

use gram_ir::Design;

use crate::args::{ExportArgs, FormatArg};
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::{ModelDir, save};
use crate::{onnx, output, source};

pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    match args.format {
        FormatArg::Onnx => export_onnx(args)?,
        FormatArg::Safetensors => {
            let model = trained(args)?;
            let bytes = gram_export::write_safetensors(&model.weights, &BTreeMap::new()).or_fail(Kind::Internal)?;
            save(&args.output, &bytes)?;
        }
        FormatArg::Dot | FormatArg::Svg | FormatArg::Text | FormatArg::Json => {
            let design = source::load(&args.model, None, None)?;
            save(&args.output, drawn(&design, args.format)?.as_bytes())?;
        }
    }
    output::line(args.output.display());
    Ok(())
}

fn export_onnx(args: &ExportArgs) -> Result<()> {
    let model = trained(args)?;
    let data = args.data.as_deref().unwrap_or(&model.preprocessing.data.path);
    let splits = model.splits_of(data)?;
    let name = model.design.name();
    let report = onnx::export(&args.output, name, &model.weights, &model.network, &model.preprocessing, &splits)?;
    output::note(format_args!(
        "checked on {} validation images: largest relative difference {:.1e}, {} of {} classes equal",
        report.n_images, report.max_relative_difference, report.n_argmax_equal, report.n_images
    ));
    Ok(())
}

fn trained(args: &ExportArgs) -> Result<ModelDir> {
    let dir = Path::new(&args.model);
    if !dir.is_dir() {
        let format = if args.format == FormatArg::Onnx { "onnx" } else { "safetensors" };
        let model = &args.model;
        return Err(Failure::new(
            Kind::Usage,
            format!(
                "{model} is no model folder: --format {format} needs trained weights; `gram train {model} --data … -o DIR` makes them"
            ),
        ));
    }
    ModelDir::open(dir)
}

fn drawn(design: &Design, format: FormatArg) -> Result<String> {
    let lower = || design.lower().or_fail(Kind::Usage);
    Ok(match (format, design) {
        (FormatArg::Text, _) => design.to_string(),
        (FormatArg::Json, _) => design.to_json(),
        (FormatArg::Dot, Design::Architecture(architecture)) => gram_export::architecture_to_dot(architecture),
        (FormatArg::Dot, Design::Network { .. }) => gram_export::network_to_dot(&lower()?),
        (_, Design::Architecture(architecture)) => gram_export::architecture_to_svg(architecture),
        (_, Design::Network { name, .. }) => {
            return Err(Failure::new(Kind::Usage, format!("{name} has no cells to draw: use --format dot")));
        }
    })
}
