//! `gram space`: what limits a space can meet, before any training.

use std::path::PathBuf;
use std::sync::Arc;

use gram_ir::{Limits, Network, Shape, Space, grouped};
use gram_latency::Predictor;
use gram_search::{
    CostRange, Feasibility, Gate, LatencyLimit, LatencyModel, LatencyRange, LimitKind, Preflight, PreflightError,
    cheapest_child, preflight_on,
};
use serde::Serialize;

use crate::args::SpaceArgs;
use crate::commands::latency::{open_predictor, predict_failure};
use crate::failure::{Failure, Kind, Result};
use crate::output;
use crate::study::config::LatencySettings;
use crate::study::load::{SearchOptions, load, load_without_data, shape_of};

#[derive(Serialize)]
struct Report<'a> {
    space: &'a str,
    input: Shape,
    num_classes: usize,
    #[serde(flatten)]
    preflight: &'a Preflight,
}

pub(crate) fn run(args: &SpaceArgs) -> Result<()> {
    let (config, space, input, num_classes) = match args.input {
        Some(input) => {
            let (config, space) = load_without_data(&args.selectors, input)?;
            (config, space, input, args.classes.unwrap_or(10))
        }
        None => {
            let loaded = load(&args.selectors, SearchOptions::default())?;
            let (input, num_classes) = (shape_of(&loaded.dataset), loaded.dataset.classes.len());
            (loaded.config, loaded.space, input, args.classes.unwrap_or(num_classes))
        }
    };
    let device = Device::open(args, config.latency.as_ref())?;
    let limit = device.as_ref().and_then(Device::limit);
    let gate = Gate { space: &space, input, num_classes, limits: &config.limits, latency: limit.as_ref() };
    let model = device.as_ref().map(|device| device as &dyn LatencyModel);
    let preflight = preflight_on(&gate, model, config.seed).map_err(preflight_failure)?;
    if let Some(device) = device.as_ref().filter(|_| preflight.latency_ms.is_none()) {
        // It says which operator the device's table lacks.
        device.require(&cheapest_child(&space, input, num_classes, config.seed).map_err(preflight_failure)?)?;
    }
    let report = Report { space: &space.name, input, num_classes, preflight: &preflight };
    if args.json {
        output::json(&report)?;
    } else {
        print(&report);
    }
    // Shown first: the figures say by how much the limits would have to give.
    preflight.require().map_err(preflight_failure)
}

/// A device that latencies are predicted for, with a limit or without.
#[derive(Clone)]
struct Device {
    predictor: Arc<Predictor>,
    max_ms: Option<f64>,
}

impl LatencyModel for Device {
    fn upper_ms(&self, network: &Network) -> Option<f64> {
        self.predictor.predict(network).ok().map(|prediction| prediction.high)
    }
}

impl Device {
    /// The device of the options, or else of the study file; none if neither names one.
    fn open(args: &SpaceArgs, settings: Option<&LatencySettings>) -> Result<Option<Self>> {
        let max_ms = args.max_latency_ms.or(settings.map(|settings| settings.max_ms));
        if let Some(ms) = max_ms.filter(|ms| !(*ms > 0.0 && ms.is_finite())) {
            return Err(Failure::new(Kind::Usage, format!("the limit on latency is {ms} ms, it must be above 0")));
        }
        let of_file = settings.map(|settings| settings.device.as_str()).filter(|device| !device.is_empty());
        let path = args.latency_device.clone().or(of_file.map(PathBuf::from));
        let Some(path) = path else {
            return match max_ms {
                None => Ok(None),
                Some(_) => Err(Failure::new(Kind::Usage, NO_DEVICE)),
            };
        };
        let (_, predictor) = open_predictor(&path)?;
        Ok(Some(Self { predictor: Arc::new(predictor), max_ms }))
    }

    fn limit(&self) -> Option<LatencyLimit> {
        self.max_ms.map(|max_ms| LatencyLimit { max_ms, model: Arc::new(self.clone()) })
    }

    /// Fails if the table lacks an operator of this network.
    fn require(&self, network: &Network) -> Result<()> {
        self.predictor.predict(network).map(drop).map_err(predict_failure)
    }
}

/// What to do about a limit on latency that is about nothing.
pub(crate) const NO_DEVICE: &str =
    "a limit on latency needs a device: --latency-device FILE, written by gram latency profile";

/// What the space can cost; a space that cannot be built is refused with exit code 2.
pub(crate) fn preflight(
    space: &Space,
    input: Shape,
    num_classes: usize,
    limits: &Limits,
    seed: u64,
) -> Result<Preflight> {
    gram_search::preflight(space, input, num_classes, limits, seed).map_err(preflight_failure)
}

pub(crate) fn preflight_failure(error: PreflightError) -> Failure {
    Failure { kind: preflight_kind(&error), error: error.into() }
}

/// Exit code 3 for limits that nothing meets, 2 for a space that does not suit the images.
pub(crate) fn preflight_kind(error: &PreflightError) -> Kind {
    if matches!(error, PreflightError::Unmeetable { .. }) { Kind::Limits } else { Kind::Usage }
}

fn print(report: &Report<'_>) {
    let preflight = report.preflight;
    let Preflight { macs, params, peak_bytes, limits, log10_children, stages, .. } = preflight;
    output::line(format_args!("{} on {}, {} classes", report.space, report.input, report.num_classes));
    let header = ["", "min", "p10", "median", "p90", "max", "limit", "kept by"].map(String::from).to_vec();
    let row = |name: String, costs: [String; 5], limit: Option<String>, kind: LimitKind| {
        let kept = preflight.limit_uses.iter().find(|limit| limit.limit == kind).map(|limit| 1.0 - limit.refused);
        let kept = kept.map_or("-".into(), |kept| format!("{:.0} %", 100.0 * kept));
        std::iter::once(name).chain(costs).chain([limit.unwrap_or("-".into()), kept]).collect::<Vec<_>>()
    };
    let exact = |range: &CostRange| [range.min, range.p10, range.p50, range.p90, range.max].map(grouped);
    let peak =
        [peak_bytes.least_seen, peak_bytes.p10, peak_bytes.p50, peak_bytes.p90, peak_bytes.most_seen].map(grouped);
    let (max_macs, max_params) = (limits.max_macs.map(|most| most.0), limits.max_params.map(|most| most.0));
    let mut rows = vec![
        header,
        row("MACs".into(), exact(macs), max_macs.map(grouped), LimitKind::Macs),
        row("params".into(), exact(params), max_params.map(grouped), LimitKind::Params),
        row(
            format!("peak bytes ({})", limits.memory.dtype),
            peak,
            limits.max_peak_bytes.map(grouped),
            LimitKind::PeakBytes,
        ),
    ];
    if let Some(LatencyRange { least_seen, p10, p50, p90, most_seen }) = preflight.latency_ms {
        let ms = [least_seen, p10, p50, p90, most_seen].map(|ms| format!("{ms:.4}"));
        let limit = preflight.max_latency_ms.map(|ms| ms.to_string());
        rows.push(row("ms, upper end".into(), ms, limit, LimitKind::LatencyMs));
    }
    output::table(&rows);
    output::line(format_args!(
        "min and max of MACs and params hold for every child, the others are of children that were seen; every child takes {} peak bytes or more",
        grouped(peak_bytes.at_least)
    ));
    let nodes: Vec<String> = stages.iter().map(|stage| stage.nodes.to_string()).collect();
    output::line(format_args!(
        "about 10^{log10_children:.1} children in {} stages of {} nodes",
        stages.len(),
        nodes.join(", ")
    ));
    print_limits(preflight);
}

/// Which limit binds, and whether all can be met.
fn print_limits(preflight: &Preflight) {
    if let Some(binding) = preflight.binding
        && let Some(limit) = preflight.limit_uses.iter().find(|limit| limit.limit == binding)
    {
        let beside = limit.of_typical.map_or(String::new(), |share| format!(", being {share:.2} times the median"));
        output::line(format_args!(
            "the limit on {binding} binds{beside}: {:.0} % of typical children break it; {:.0} % keep all limits",
            100.0 * limit.refused,
            100.0 * preflight.kept
        ));
    }
    let undecided = preflight.limits.max_peak_bytes.is_some() || preflight.max_latency_ms.is_some();
    output::line(match preflight.feasibility {
        Feasibility::Met => "the limits can be met",
        Feasibility::Unmeetable => "the limits cannot be met",
        Feasibility::Undecided if undecided => "whether one child meets all limits was not decided",
        Feasibility::Undecided => "each limit can be met alone; whether one child meets all was not decided",
    });
}
