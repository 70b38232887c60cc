//! Few-shot transfer on the real tables, where they are.

#![allow(clippy::print_stderr, reason = "a skipped test says why")]

use std::path::PathBuf;

use gram_latency::transfer::{LatencyTable, SampleChoice, TransferConfig, transfer};

/// The folder with the data; none: skip. With `GRAM_REQUIRE_DATA=1` its absence is a failure.
fn data(file: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("GRAM_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")), PathBuf::from);
    let path = folder.join(file);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var("GRAM_REQUIRE_DATA").is_ok_and(|value| value == "1");
    assert!(!required, "GRAM_REQUIRE_DATA is set, but {} is missing", path.display());
    eprintln!("skipped: {} is missing", path.display());
    None
}

fn config(choice: SampleChoice) -> TransferConfig {
    TransferConfig { samples: 10, draws: 10, seed: 1, choice, evaluated: 1000 }
}

#[test]
fn ten_samples_rank_nasbench201_better_than_macs_on_every_device() {
    let Some(latencies) = data("nas/nasbench201/latency_ms.csv.gz") else { return };
    let Some(cells) = data("nas/nasbench201/accuracy_cifar10.csv.gz") else { return };
    let table = LatencyTable::nasbench201(&latencies, &cells).unwrap();
    assert_eq!((table.n_rows(), table.devices().len()), (15_625, 22));
    for choice in [SampleChoice::Random, SampleChoice::Spread] {
        let report = transfer(&table, config(choice));
        eprintln!("{report:#?}");
        assert!(report.mean_spearman >= 0.95, "{choice:?}: {}", report.mean_spearman);
        assert_eq!(report.below_macs, Vec::<String>::new());
        assert_eq!(report, transfer(&table, config(choice)));
    }
}

#[test]
fn ten_samples_on_fbnet() {
    let Some(path) = data("nas/fbnet/latency_ms.csv.gz") else { return };
    let table = LatencyTable::fbnet(&path).unwrap();
    assert_eq!(table.n_rows(), 5000);
    let report = transfer(&table, config(SampleChoice::Spread));
    eprintln!("{report:#?}");
    assert!(report.mean_spearman > 0.88, "{report:?}");
    assert_eq!(report.below_macs, Vec::<String>::new());
}
