//! Costs of presets against published tables; skipped, and said so, where the data is absent.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;
use gram_ir::{NasBench101Cell, NasBench201Cell, Op, Shape, preset};

/// The path of a file of the shared data, if it is there; with `GRAM_REQUIRE_DATA=1` it must be.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn data(relative: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let root = std::env::var_os("GRAM_DATA").map_or_else(|| PathBuf::from(default), PathBuf::from);
    let path = root.join(relative);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("GRAM_REQUIRE_DATA").is_none_or(|value| value != "1"), "{} is missing", path.display());
    eprintln!("skipped: {} is missing", path.display());
    None
}

fn gunzip(path: PathBuf) -> String {
    let mut text = String::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn params_of_every_nasbench101_cell() {
    let Some(path) = data("nas/nasbench101-energy/ec_nas_7v.csv.gz") else { return };
    let table = gunzip(path);
    let mut n_rows = 0;
    for row in table.lines().skip(1) {
        let fields: Vec<&str> = row.split(',').collect();
        let cell: NasBench101Cell = format!("{}:{}", fields[1], fields[2]).parse().unwrap();
        let params = cell.network(Shape::chw(3, 32, 32), 10).unwrap().params().0;
        assert_eq!(params.to_string(), fields[3], "row {}", fields[0]);
        n_rows += 1;
    }
    assert_eq!(n_rows, 2998);
}

#[test]
fn every_nasbench201_cell_of_the_table_parses() {
    let Some(path) = data("nas/nasbench201/accuracy_cifar10.csv.gz") else { return };
    let table = gunzip(path);
    let mut n_rows = 0;
    for row in table.lines().skip(1) {
        let text = row.split(',').nth(1).unwrap();
        let cell: NasBench201Cell = text.parse().unwrap();
        assert_eq!(cell.to_string(), text);
        n_rows += 1;
    }
    assert_eq!(n_rows, 15_625);
}

/// One row of the table: what it says and what we count.
struct MobileNetRow {
    name: String,
    mmacs: [f64; 2],
    mparams: [f64; 2],
}

fn mobilenet_rows(table: &str) -> Vec<MobileNetRow> {
    let rows = table.lines().map(|row| row.split(',').collect::<Vec<_>>()).filter(|row| row[0] == "mobilenet_v2");
    let compare = |row: Vec<&str>| {
        let (width, side) = (row[1], row[2].parse().unwrap());
        let network =
            preset(&format!("mobilenet-v2-{width}"), Some(Shape::chw(3, side, side)), None).unwrap().lower().unwrap();
        let norms: u64 = network
            .nodes()
            .iter()
            .filter(|node| matches!(node.op, Op::BatchNorm { .. }))
            .map(|node| node.op.params().0)
            .sum();
        MobileNetRow {
            name: format!("{width} at {side}"),
            mmacs: [row[3].parse().unwrap(), network.cost().macs.0 as f64 / 1e6],
            mparams: [row[4].parse().unwrap(), (network.params().0 - norms) as f64 / 1e6],
        }
    };
    rows.map(compare).collect()
}

/// The table cuts MACs to whole millions (300.77 is 300) and rounds params to ten thousands; it counts weights and the classifier's
/// bias, but not batch norm. So there is no tolerance for MACs, and half of the last digit for params.
#[test]
fn mobilenet_is_within_the_rounding_of_its_table() {
    let Some(path) = data("nas/mobilenet/mobilenet_pixel_latency.csv") else { return };
    let rows = mobilenet_rows(&std::fs::read_to_string(path).unwrap());
    assert_eq!(rows.len(), 22);
    for MobileNetRow { name, mmacs: [mmacs, our_mmacs], mparams: [mparams, our_mparams] } in rows {
        assert_eq!(our_mmacs.floor(), mmacs, "{name}: {our_mmacs} million MACs");
        assert!((our_mparams - mparams).abs() <= 0.005, "{name}: {our_mparams} million params, not {mparams}");
    }
}
