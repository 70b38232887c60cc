//! `ARCH` arguments: a file (JSON, text form or net file) or the name of a preset.

use std::path::Path;

use gram_ir::{Design, Shape};

use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::{model_folder, read_text};
use crate::net;

/// Reads an architecture and fits it to `input` and `classes` where they are given.
///
/// # Errors
/// Exit code 4 for a file that does not parse, 2 for a name that is neither a file nor a preset or an input that does not fit.
pub(crate) fn load(name: &str, input: Option<Shape>, classes: Option<usize>) -> Result<Design> {
    let path = Path::new(name);
    let file = if path.is_dir() { model_folder(path).join("architecture.json") } else { path.to_path_buf() };
    if file.is_file() {
        let design = parse(&file, &read_text(&file)?)?;
        let (old_input, old_classes) = (design.input_shape(), design.num_classes());
        let (input, classes) = (input.unwrap_or(old_input), classes.unwrap_or(old_classes));
        if (input, classes) == (old_input, old_classes) {
            return Ok(design);
        }
        return design.with_io(input, classes).or_fail_with(Kind::Usage, file.display());
    }
    let is_cell = name.starts_with("nasbench101:") || name.starts_with("nasbench201:");
    let is_file_name = path.extension().is_some_and(|extension| extension == "json" || extension == "txt");
    let is_file_name = is_file_name || net::has_extension(path);
    if !is_cell && (path.components().count() > 1 || is_file_name) {
        return Err(Failure::new(Kind::Data, format!("{name}: no such file")));
    }
    gram_ir::preset(name, input, classes).or_fail(Kind::Usage)
}

fn parse(file: &Path, text: &str) -> Result<Design> {
    if net::is_net(file, text) {
        let wrong = |problem| Failure::new(Kind::Data, format!("{}: {problem}", file.display()));
        return net::parse(file, text).map(Design::Architecture).map_err(wrong);
    }
    Design::parse(text).or_fail_with(Kind::Data, file.display())
}
