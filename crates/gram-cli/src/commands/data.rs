//! `gram data info` and `gram data list`.

use gram_data::{Info, LoadOptions};

use crate::args::DataCommand;
use crate::failure::{Kind, OrFail, Result};
use crate::output;

pub(crate) fn run(command: &DataCommand) -> Result<()> {
    match command {
        DataCommand::Info { data, image_size, json } => {
            let options = LoadOptions { image_size: *image_size, ..LoadOptions::default() };
            let dataset = gram_data::open(data, &options).or_fail(Kind::Data)?;
            let info = gram_data::describe(&dataset);
            if *json {
                return output::json(&info);
            }
            print(&info);
            Ok(())
        }
        DataCommand::List => {
            output::line(LIST);
            Ok(())
        }
    }
}

const LIST: &str = "\
built in
  optdigits        1,797 handwritten digits, 8x8, 10 classes

recognised in a folder (files plain, .gz or .xz)
  IDX              train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-… (MNIST, Fashion-MNIST, EMNIST)
  CIFAR-10         data_batch_1.bin …, test_batch.bin
  CIFAR-100        train.bin, test.bin
  image folder     train/<class>/*.jpg, val/<class>/*.jpg, or <class>/*.jpg; JPEG and PNG of any size";

fn print(info: &Info) {
    let sizes = info.original_sizes.map(|sizes| {
        let ([h0, w0], [h1, w1]) = (sizes.min, sizes.max);
        format!(" (files {h0}x{w0} to {h1}x{w1})")
    });
    output::line(format_args!("{}: {}, {} classes", info.name, info.format, info.classes.len()));
    output::line(format_args!("images  {}{}", info.shape, sizes.unwrap_or_default()));
    output::line(format_args!("digest  {}", info.digest));
    let splits = [("train", info.n_train), ("validation", info.n_validation), ("test", info.n_test)];
    let shown: Vec<usize> = (0..3).filter(|&i| i == 0 || splits[i].1 > 0).collect();
    let mut rows = vec![row("class", shown.iter().map(|&i| splits[i].0.to_string()))];
    for class in &info.classes {
        let counts = [class.n_train, class.n_validation, class.n_test];
        rows.push(row(&class.name, shown.iter().map(|&i| counts[i].to_string())));
    }
    rows.push(row("all", shown.iter().map(|&i| splits[i].1.to_string())));
    output::line("");
    output::table(&rows);
}

fn row(first: &str, rest: impl Iterator<Item = String>) -> Vec<String> {
    std::iter::once(first.to_owned()).chain(rest).collect()
}
