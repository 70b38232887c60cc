//! From profile to prediction on a made-up device whose times are known.

use std::ops::ControlFlow;

use gram_ir::{CellOp, Op, Shape, space_preset};
use gram_latency::family::{Family, FamilyKind, aligned_space, smaller_space};
use gram_latency::profile::{Prepared, ProfileConfig};
use gram_latency::{
    DeviceFile, DeviceFileError, FakeEngine, FitError, KernelOp, MeasureError, NewDevice, PredictError, Predictor,
    References, adapt, adaptation_networks, check, engine_layout, fit, measure_here,
};
use gram_latency_runner::{Engine, Outcome, Plan, RunError};

fn family(nodes: usize) -> Family {
    let space = smaller_space(&aligned_space(&space_preset("swiftnet-vww").unwrap(), 16), nodes);
    Family { name: "swiftnet".into(), kind: FamilyKind::Space(space), input: Shape::chw(3, 64, 64), num_classes: 2 }
}

fn prepared(engine: &FakeEngine, family: Family, networks: u64) -> Prepared {
    let config = ProfileConfig {
        networks,
        kernel_networks: 12,
        random_kernels: 40,
        kernel_rounds: 1,
        network_rounds: 2,
        plan: Plan { runs: 8, warmups: 1, pause_ms: 0, ..Plan::default() },
        ..ProfileConfig::new(vec![family])
    };
    Prepared::new(&config, engine_layout(engine).unwrap()).unwrap()
}

fn go_on(_: gram_latency_runner::Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn profiled(engine: &FakeEngine, nodes: usize) -> DeviceFile {
    profiled_with(engine, family(nodes), 12)
}

fn profiled_with(engine: &FakeEngine, family: Family, networks: u64) -> DeviceFile {
    let prepared = prepared(engine, family, networks);
    let records = measure_here(engine, &prepared, None, &mut go_on).unwrap();
    let mut file = prepared.device_file(engine.device(), &records).unwrap();
    file.fit = Some(fit(&file).unwrap());
    file
}

#[test]
fn a_device_without_noise_is_predicted_at_four_times_the_size() {
    // ALGORITHMS 4.2, F1: exact but for kernels that only large networks have, which are estimated.
    let engine = FakeEngine::new("exact", 1.0, 1);
    let file = profiled(&engine, 8);
    let predictor = Predictor::new(&file).unwrap();
    let large = family(30);
    for index in 0..20 {
        let network = large.network(5, index).unwrap();
        let predicted = predictor.predict(&network).unwrap();
        let expected = engine.network_time(&network) / 1e3;
        assert!((predicted.ms / expected - 1.0).abs() < 5e-3, "{predicted:?}, {expected}");
        assert!(predicted.low < expected && expected < predicted.high, "{predicted:?}, {expected}");
    }
    // The profiler's share of every kernel was found.
    assert!((predictor.fit().per_kernel_us + FakeEngine::PROFILER_US).abs() < 0.1, "{:?}", predictor.fit());
}

#[test]
fn what_shared_caches_cost_is_found_in_whole_networks() {
    let input = Shape::chw(3, 128, 128);
    let chain = Family { name: "chain".into(), kind: FamilyKind::Chain, input, num_classes: 1000 };
    let mut engine = FakeEngine::new("shared", 1.0, 1);
    engine.shared_us_per_mb = 60.0;
    let file = profiled_with(&engine, chain.clone(), 24);
    let predictor = Predictor::new(&file).unwrap();
    assert!((predictor.fit().eviction_us_per_mb - 60.0).abs() < 6.0, "{:?}", predictor.fit());
    for index in 0..12 {
        let network = chain.network(9, index).unwrap();
        let predicted = 1e3 * predictor.predict(&network).unwrap().ms;
        let expected = engine.network_time(&network);
        assert!((predicted / expected - 1.0).abs() < 0.01, "{predicted}, {expected}");
    }

    // Others now use the caches twice as much. The small reference hardly sees it, the large one does.
    engine.shared_us_per_mb = 120.0;
    let networks = (0..12).map(|index| (format!("chain/{index}"), chain.network(9, index).unwrap())).collect();
    let prepared = Prepared::of_networks(networks, 2, &file.plan, file.layout).unwrap();
    let records = measure_here(&engine, &prepared, None, &mut go_on).unwrap();
    let mape = |then: References| check(&file, &prepared.networks(&records, then)).unwrap()[0].accuracy.mape;
    let (seen, unseen) = (mape(file.references()), mape(References { large_us: None, ..file.references() }));
    assert!(seen < 0.01 && unseen > 0.03, "{seen}, {unseen}");
}

#[test]
fn predictions_are_a_sum_and_so_extrapolate_while_flat_ones_do_not() {
    let mut engine = FakeEngine::new("noisy", 1.0, 3);
    engine.noise = 0.01;
    let file = profiled(&engine, 8);
    let networks: Vec<_> = (0..24).map(|i| (format!("large/{i}"), family(30).network(9, i).unwrap())).collect();
    let prepared = Prepared::of_networks(networks, 2, &file.plan, file.layout).unwrap();
    let records = measure_here(&engine, &prepared, None, &mut go_on).unwrap();
    let report = &check(&file, &prepared.networks(&records, file.references())).unwrap()[0];
    assert!(report.accuracy.mape < 0.02 && report.accuracy.spearman > 0.98, "{report:?}");
    assert!(report.flat.mape > 2.0 * report.accuracy.mape && report.mean_readout.mape > 2.0 * report.accuracy.mape);
    assert!(report.coverage > 0.7, "{report:?}");
}

#[test]
fn a_run_that_was_stopped_goes_on_and_ends_with_the_same_file() {
    let engine = FakeEngine::new("stopped", 1.0, 1);
    let prepared = prepared(&engine, family(8), 12);
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("device.json.journal");
    let whole = measure_here(&engine, &prepared, None, &mut go_on).unwrap();
    let mut calls = 0;
    let mut stop_at = |most: usize| {
        calls = 0;
        let records = measure_here(&engine, &prepared, Some(&journal), &mut |_| {
            calls += 1;
            if calls > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (records, calls)
    };
    assert!(matches!(stop_at(50).0, Err(MeasureError::Stopped)));
    let (records, calls) = stop_at(usize::MAX);
    let total = prepared.jobs.measurements().count();
    // 48 of the first 50 lay in whole blocks.
    assert_eq!(calls, total - 48);
    let file = |records: &[gram_latency_runner::Record]| prepared.device_file(engine.device(), records).unwrap();
    assert_eq!(file(&records.unwrap()), file(&whole));
    assert_eq!(stop_at(0).1, 0);
    // Another device does not go on with it.
    let other = FakeEngine::new("other", 1.0, 1);
    let error = measure_here(&other, &prepared, Some(&journal), &mut go_on).unwrap_err().to_string();
    assert!(error.contains("another device (host: stopped, not other)"), "{error}");
}

#[test]
fn what_the_engine_refuses_costs_only_itself() {
    let mut engine = FakeEngine::new("refusing", 1.0, 1);
    engine.refuses = Some(KernelOp::AvgPool);
    // A sixth of the nodes, so that a third of the networks has none.
    let mut pools = family(3);
    if let FamilyKind::Space(space) = &mut pools.kind {
        use CellOp::{AvgPool3x3, Conv1x1, Sep3x3};
        space.operators = vec![Conv1x1, Sep3x3, Conv1x1, Sep3x3, Conv1x1, AvgPool3x3];
    }
    let config = ProfileConfig {
        networks: 30,
        kernel_networks: 0,
        random_kernels: 0,
        network_rounds: 1,
        plan: Plan { runs: 4, warmups: 0, pause_ms: 0, ..Plan::default() },
        ..ProfileConfig::new(vec![pools])
    };
    let prepared = Prepared::new(&config, engine.layout).unwrap();
    let records = measure_here(&engine, &prepared, None, &mut go_on).unwrap();
    let mut file = prepared.device_file(engine.device(), &records).unwrap();
    assert!(file.refused.iter().any(|(id, why)| id.starts_with("kernel avgpool") && why.contains("avgpool")));
    assert!(file.refused.keys().any(|id| id.starts_with("network ")));
    assert!(!file.networks.is_empty() && file.networks.len() < 30);
    // What is left can be fitted and used.
    assert!(matches!(fit(&file), Ok(_) | Err(FitError::TooFew { .. })));
    file.networks.truncate(3);
    assert_eq!(fit(&file), Err(FitError::TooFew { found: 3 }));
}

#[test]
fn a_noisy_machine_is_refused_with_advice_and_what_was_measured_is_kept() {
    let mut engine = FakeEngine::new("noisy", 1.0, 2);
    engine.noise = 0.8;
    let prepared = prepared(&engine, family(8), 12);
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let error = measure_here(&engine, &prepared, Some(&journal), &mut go_on).unwrap_err();
    assert!(matches!(error, MeasureError::Run(RunError::Noisy { .. })), "{error:?}");
    assert!(error.to_string().contains("governor `performance`"), "{error}");
    // Quiet again, the same journal is continued.
    engine.noise = 0.0;
    assert!(measure_here(&engine, &prepared, Some(&journal), &mut go_on).is_ok());
}

#[test]
fn an_operator_without_a_kernel_is_named() {
    let file = profiled(&FakeEngine::new("small", 1.0, 1), 8);
    let predictor = Predictor::new(&file).unwrap();
    let mut network = gram_ir::Network::new(Shape::chw(22, 8, 8));
    let norm = network.add("norm", Op::BatchNorm { channels: 22 }, &[network.input()]).unwrap();
    network.set_output(norm).unwrap();
    let error = predictor.predict(&network).unwrap_err();
    assert!(matches!(error, PredictError::MissingOperator { .. }));
    let text = error.to_string();
    assert!(text.contains("`batchnorm 22x8x8`") && text.contains("gram latency profile --space"), "{text}");
    let unfitted = DeviceFile { fit: None, ..file };
    assert!(matches!(Predictor::new(&unfitted), Err(PredictError::NotFitted)));
}

#[test]
fn device_files_keep_everything_and_refuse_what_is_not_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.json");
    let file = profiled(&FakeEngine::new("kept", 1.0, 1), 8);
    file.write(&path).unwrap();
    assert_eq!(DeviceFile::read(&path).unwrap(), file);
    let predictor = Predictor::open(&path).unwrap();
    let network = family(20).network(1, 1).unwrap();
    assert_eq!(predictor.predict(&network).unwrap(), Predictor::new(&file).unwrap().predict(&network).unwrap());

    let text = std::fs::read_to_string(&path).unwrap();
    let refused = |text: String| {
        std::fs::write(&path, text).unwrap();
        DeviceFile::read(&path).unwrap_err()
    };
    let error = refused(text.replacen("\"format_version\": 2", "\"format_version\": 7", 1));
    assert!(matches!(error, DeviceFileError::Version { found: 7, .. }), "{error}");
    assert!(error.to_string().contains("Profile the device again"), "{error}");
    for (from, to, words) in [
        ("\"us\": ", "\"us\": -", "a time of -"),
        ("\"reference_us\": ", "\"reference_us\": -", "must be above 0"),
        ("conv ", "convolution ", "no operator `convolution`"),
        ("\"min_us\": ", "\"unknown\": ", "unknown field"),
    ] {
        let error = refused(text.replacen(from, to, 1)).to_string();
        assert!(error.contains(words) && error.contains("device.json"), "{error}");
    }
    assert!(refused(String::new()).to_string().contains("EOF"));
    std::fs::remove_file(&path).unwrap();
    assert!(DeviceFile::read(&path).unwrap_err().to_string().starts_with("cannot read "));
    let other = FakeEngine::new("other", 1.0, 1);
    let error = file.expect_device(&path, other.device()).unwrap_err().to_string();
    assert!(error.contains("host: kept, not other") && error.contains("not mixed"), "{error}");
}

#[test]
fn ten_networks_adapt_to_a_slower_device() {
    let known = profiled(&FakeEngine::new("desktop", 1.0, 1), 12);
    let mut slow = FakeEngine::new("phone", 0.2, 5);
    // It computes a fifth as fast but moves bytes half as fast: no mere factor.
    slow.bytes_per_us = 1e4;
    slow.noise = 0.005;
    let networks = adaptation_networks(&known, &known.families, 10, 77).unwrap();
    assert_eq!(networks.len(), 10);
    let prepared = Prepared::of_networks(networks.clone(), 3, &known.plan, slow.layout).unwrap();
    let records = measure_here(&slow, &prepared, None, &mut go_on).unwrap();
    assert!(records.iter().all(|record| matches!(record.outcome, Outcome::Measured(_))));
    let (references, times) = prepared.own_networks(&records);
    let measured =
        networks.into_iter().zip(times).map(|((name, network), time)| (name, network, [time.p50_us, time.min_us]));
    let new =
        NewDevice { device: slow.device.clone(), plan: known.plan.clone(), references, networks: measured.collect() };
    let adapted = adapt(std::slice::from_ref(&known), &new).unwrap();
    assert_eq!((&adapted.device, adapted.borrowed_from.as_ref()), (&slow.device, Some(&known.device)));
    let predictor = Predictor::new(&adapted).unwrap();
    let mut worst: f64 = 0.0;
    for index in 0..40 {
        let network = family(12).network(123, index).unwrap();
        let predicted = predictor.predict(&network).unwrap().ms;
        worst = worst.max((1e3 * predicted / slow.network_time(&network) - 1.0).abs());
    }
    assert!(worst < 0.05, "{worst}");
    assert!(adapt(&[], &new).is_err());
}
