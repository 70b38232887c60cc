//! What `gram prune` prints, and the file of `--front`.

use gram_ir::{Cost, Design, Limits, MemoryModel, grouped};
use gram_prune::{Choice, Chosen, Origin, Setting, Step};
use gram_search::ExpectedAccuracy;
use gram_search::surrogate::CrossValidation;
use serde::Serialize;

use crate::failure::{Kind, OrFail, Result};
use crate::output;

use super::named;
use super::study::StudyOf;

/// The version of `--front` files.
const FORMAT_VERSION: u32 = 1;
/// No more networks are printed for people.
const MAX_ROWS: usize = 20;

#[derive(Serialize)]
pub(super) struct Report {
    format_version: u32,
    study: String,
    limits: Limits,
    max_latency_ms: Option<f64>,
    /// How well children that were held out are ranked and guessed; none where no accuracy is expected.
    accuracy: Option<CrossValidation>,
    /// Different networks that were looked at.
    n_candidates: usize,
    /// Those of them that keep the limits and got all their costs.
    n_within: usize,
    /// Steps of `--repair`, in words; there only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<Vec<String>>,
    best: Line,
    /// The networks that no other beats in expected top-1, MACs, params, peak bytes and latency at once; best first.
    front: Vec<Line>,
}

#[derive(Clone, Serialize)]
struct Line {
    /// `thresholds`, `child` or `repaired`.
    origin: &'static str,
    /// Number of the child, where it is one.
    child: Option<usize>,
    /// What the child scored; none for what was not trained.
    validation_top1: Option<f64>,
    #[serde(flatten)]
    expected: Option<Expected>,
    #[serde(flatten)]
    cost: Cost,
    /// For the engine that the study's limits describe.
    peak_bytes: u64,
    #[serde(flatten)]
    latency: Option<Latency>,
    /// Sum of log-odds of the edges that are kept.
    retained_weight: f64,
    architecture: serde_json::Value,
}

/// Of one training on the study's proxy.
#[derive(Clone, Copy, Serialize)]
struct Expected {
    expected_validation_top1: f64,
    expected_validation_top1_sd: f64,
    /// Ends of the 90 % interval.
    expected_validation_top1_low: f64,
    expected_validation_top1_high: f64,
}

#[derive(Clone, Copy, Serialize)]
struct Latency {
    latency_ms: f64,
    /// Ends of the prediction's 90 % interval.
    latency_ms_low: f64,
    latency_ms_high: f64,
}

impl Report {
    pub(super) fn new(
        study: &StudyOf,
        setting: &Setting<'_>,
        accuracy: Option<&ExpectedAccuracy>,
        chosen: &Chosen,
        steps: Option<&[Step]>,
    ) -> Result<Self> {
        let front = chosen.front.iter().map(|choice| line(study, choice)).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            format_version: FORMAT_VERSION,
            study: study.dir.display().to_string(),
            limits: *setting.limits,
            max_latency_ms: setting.max_latency_ms,
            accuracy: accuracy.map(|model| *model.check()),
            n_candidates: chosen.n_candidates,
            n_within: chosen.n_within,
            repair: steps.map(|steps| steps.iter().map(|step| step.swap.to_string()).collect()),
            best: front[0].clone(),
            front,
        })
    }

    pub(super) fn print(&self, engine: &MemoryModel) {
        let peak = format!("peak bytes ({})", engine.dtype);
        let with_latency = self.front.iter().any(|line| line.latency.is_some());
        let ms = if with_latency { "ms, upper end" } else { "" };
        let header = ["", "expected top-1", "90 % interval", "MACs", "params", &peak, "retained weight", ms];
        let mut rows = vec![header.map(String::from).to_vec()];
        rows.extend(self.front.iter().take(MAX_ROWS).map(Line::row));
        output::table(&rows);
        if self.front.len() > MAX_ROWS {
            output::line(format_args!("and {} more; --front FILE writes all", self.front.len() - MAX_ROWS));
        }
        output::line(format_args!(
            "{} networks within the limits compared, of {} candidates; expected is the validation top-1 that a child would score",
            grouped(self.n_within as u64),
            grouped(self.n_candidates as u64)
        ));
        if let Some(check) = &self.accuracy {
            output::line(format_args!(
                "{} children held out in turn: Kendall's tau {:.2} (chance stays within {:.2}), mean error {:.2} points",
                check.n_examples,
                check.kendall_tau,
                check.tau_of_chance(),
                100.0 * check.mean_absolute_error
            ));
        }
        for step in self.repair.iter().flatten() {
            output::line(format_args!("repair: {step}"));
        }
        if self.repair.as_ref().is_some_and(Vec::is_empty) {
            output::line("repair: no swap raises the expected accuracy of the best network");
        }
    }
}

fn line(study: &StudyOf, choice: &Choice) -> Result<Line> {
    let text = Design::Architecture(named(choice)).to_json();
    let (origin, child) = match choice.origin {
        Origin::Thresholds(_) => ("thresholds", None),
        Origin::Given(child) => ("child", Some(child)),
        Origin::Repaired(_) => ("repaired", None),
    };
    let trained = child.and_then(|child| study.children.iter().find(|trained| trained.child == child));
    let expected = choice.expected.map(|expected| Expected {
        expected_validation_top1: expected.mean,
        expected_validation_top1_sd: expected.sd,
        expected_validation_top1_low: expected.low,
        expected_validation_top1_high: expected.high,
    });
    let latency = choice.latency.map(|latency| Latency {
        latency_ms: latency.ms,
        latency_ms_low: latency.low_ms,
        latency_ms_high: latency.high_ms,
    });
    Ok(Line {
        origin,
        child,
        validation_top1: trained.and_then(|trained| trained.validation_top1),
        expected,
        cost: choice.cost,
        peak_bytes: choice.peak_bytes,
        latency,
        retained_weight: choice.retained_weight,
        architecture: serde_json::from_str(&text).or_fail(Kind::Internal)?,
    })
}

impl Line {
    fn row(&self) -> Vec<String> {
        let percent = |top1: f64| format!("{:.2}", 100.0 * top1);
        let name = match self.child {
            Some(child) => format!("child {child}"),
            None if self.origin == "thresholds" => "pruned".into(),
            None => self.origin.into(),
        };
        let expected = |of: &dyn Fn(&Expected) -> String| self.expected.as_ref().map_or("-".into(), of);
        let interval = |of: &Expected| {
            format!("{} to {}", percent(of.expected_validation_top1_low), percent(of.expected_validation_top1_high))
        };
        vec![
            name,
            expected(&|of| format!("{} %", percent(of.expected_validation_top1))),
            expected(&interval),
            grouped(self.cost.macs.0),
            grouped(self.cost.params.0),
            grouped(self.peak_bytes),
            format!("{:.3}", self.retained_weight),
            self.latency.map_or(String::new(), |latency| format!("{:.4}", latency.latency_ms_high)),
        ]
    }
}
