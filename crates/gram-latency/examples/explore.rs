#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs)]
use std::ops::ControlFlow;
use gram_ir::*;
use gram_latency::family::*;
use gram_latency::profile::*;
use gram_latency::*;
use gram_latency_runner::*;
fn main() {
    let out = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let what = std::env::args().nth(2).unwrap();
    if what == "fit" {
        let t = std::time::Instant::now();
        let mut file = DeviceFile::read(&out).unwrap();
        if let Some(f) = std::env::args().nth(3) && f != "all" { file.networks.retain(|n| n.name.starts_with(&f)); }
        file.fit = Some(fit(&file).unwrap());
        println!("{:?} in {:.1}s", file.fit, t.elapsed().as_secs_f64());
        for s in [11, 12, 13] {
            let nets: Vec<NetworkTime> = serde_json::from_slice(&std::fs::read(out.with_file_name(format!("s{s}.json"))).unwrap()).unwrap();
            for r in check(&file, &nets).unwrap() {
                let a = |a: Accuracy| format!("{:.2}%/{:.0}/{:.0} b{:+.1} w{:.0} r{:.3}", 100.*a.mape, 100.*a.within_5_percent, 100.*a.within_10_percent, 100.*a.bias, 100.*a.worst, a.spearman);
                println!("{s} {:9} {:.3} ms ours {} cover {:.0}% ±{:.1}% est {:.0}% | macs {} | flat {} | mean {}", r.family, r.median_ms, a(r.accuracy), 100.*r.coverage, 100.*r.half_width, 100.*r.estimated_kernels, a(r.macs_times_constant), a(r.flat), a(r.mean_readout));
            }
        }
        return;
    }
    let engine = OnnxRuntime::open(None, 1).unwrap();
    let layout = engine_layout(&engine).unwrap();
    let input = Shape::chw(3, 128, 128);
    let space = aligned_space(&space_preset("swiftnet-vww").unwrap(), 16);
    let fams = vec![
        Family { name: "chain".into(), kind: FamilyKind::Chain, input, num_classes: 10 },
        Family { name: "swiftnet".into(), kind: FamilyKind::Space(space.clone()), input, num_classes: 2 },
        Family { name: "dag".into(), kind: FamilyKind::Mixed(space.clone()), input, num_classes: 10 },
        Family { name: "small".into(), kind: FamilyKind::Space(smaller_space(&space, 8)), input, num_classes: 2 },
    ];
    let prepared = if what == "profile" {
        Prepared::new(&ProfileConfig::new(fams), layout).unwrap()
    } else {
        let seed: u64 = what.parse().unwrap();
        let mut nets = vec![];
        for f in &fams { for i in 0..48 { nets.push((format!("{}/{seed}/{i}", f.name), f.network(seed, i).unwrap())); } }
        Prepared::of_networks(nets, 3, &Plan::default(), layout).unwrap()
    };
    eprintln!("{} jobs, device {}", prepared.jobs.measurements().count(), engine.device());
    let t = std::time::Instant::now();
    let mut last = 0;
    let records = measure_here(&engine, &prepared, Some(&out.with_extension("journal")), &mut |p| {
        if p.message.contains("drift") { eprintln!("{} {}", p.done, p.message); }
        if p.done / 100 != last { last = p.done / 100; eprintln!("{}/{} {:.0}s", p.done, p.total, t.elapsed().as_secs_f64()); }
        ControlFlow::Continue(())
    });
    let records = match records { Ok(r) => r, Err(e) => { eprintln!("{e}"); std::process::exit(1) } };
    eprintln!("measured in {:.1}s", t.elapsed().as_secs_f64());
    if what == "profile" {
        prepared.device_file(engine.device(), &records).unwrap().write(&out).unwrap();
    } else {
        let reference = DeviceFile::read(&out.with_file_name("dev.json")).unwrap().reference_us;
        std::fs::write(&out, serde_json::to_string(&prepared.networks(&records, reference)).unwrap()).unwrap();
    }
}
