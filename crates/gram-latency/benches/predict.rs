//! Predicting the latency of networks, as a search asks for it: a thousand a second is what it needs at least.

use std::hint::black_box;
use std::ops::ControlFlow;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gram_ir::{Network, Shape, space_preset};
use gram_latency::family::{Family, FamilyKind, aligned_space};
use gram_latency::profile::{Prepared, ProfileConfig};
use gram_latency::{DeviceFile, FakeEngine, Predictor, fit, measure_here};
use gram_latency_runner::{Engine, Plan};

/// A device file as large as a real one, of a made-up device.
fn device_file(family: &Family) -> DeviceFile {
    let engine = FakeEngine::new("bench", 1.0, 1);
    let plan = Plan { runs: 2, warmups: 0, ..Plan::default() };
    let config = ProfileConfig { networks: 32, plan, ..ProfileConfig::new(vec![family.clone()]) };
    let prepared = Prepared::new(&config, engine.layout).expect("the preset is a usable space");
    let records = measure_here(&engine, &prepared, None, &mut |_| ControlFlow::Continue(()));
    let records = records.expect("the made-up device has no noise");
    let mut file = prepared.device_file(engine.device(), &records).expect("kernels and networks were measured");
    file.fit = Some(fit(&file).expect("there are 32 networks"));
    file
}

fn predict(c: &mut Criterion) {
    let space = aligned_space(&space_preset("swiftnet-vww").expect("the preset is there"), 16);
    let kind = FamilyKind::Space(space);
    let family = Family { name: "swiftnet".into(), kind, input: Shape::chw(3, 128, 128), num_classes: 2 };
    let file = device_file(&family);
    let predictor = Predictor::new(&file).expect("the file was fitted");
    let networks: Vec<Network> = (0..64).map(|i| family.network(9, i).expect("the space is usable")).collect();
    let mut group = c.benchmark_group("latency");
    group.throughput(Throughput::Elements(networks.len() as u64));
    group.bench_function("predict_64_networks", |b| {
        b.iter(|| {
            networks.iter().map(|network| predictor.predict(black_box(network)).expect("known kernels").ms).sum::<f64>()
        });
    });
    group.throughput(Throughput::Elements(1));
    group.sample_size(10);
    group.bench_function("load_a_predictor", |b| {
        b.iter(|| Predictor::new(black_box(&file)).expect("the file was fitted"))
    });
    group.finish();
}

criterion_group!(benches, predict);
criterion_main!(benches);
