//! The best networks of a study within limits, without any training.

use std::cell::RefCell;

use gram_ir::{Architecture, Cell, Cost, LowerError, Network, SpaceCosts};
use gram_memory::{Fit, Peaks};

use crate::costs::PartCost;
use crate::pareto::{Weighed, keep_undominated};
use crate::proposals::{Proposal, proposals};
use crate::{Choice, ChooseError, PruneError, Setting, Unmeetable, pareto, prune};

/// At most so many networks within the limits get all their costs; those first that are undominated in merit, MACs and params.
const MAX_PRICED: usize = 1024;

/// What a study gives within limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Networks within the limits that no other beats in expected top-1, MACs, params, peak bytes and latency; best first, so the first is
    /// the one with the highest expected top-1.
    pub front: Vec<Choice>,
    /// Different networks that were looked at.
    pub n_candidates: usize,
    /// Those of them that keep the limits and got all their costs, 1024 at most.
    pub n_within: usize,
}

/// The best networks within the setting's limits among combinations of thresholds and the given ones.
///
/// Candidates are `given` (children of the study, with their numbers, in the numbering of the complete DAGs), the networks of
/// [`prune`], and up to 4096 further combinations of thresholds. A network is given costs and a place on the front as it would be trained:
/// with its cells in canonical form.
///
/// # Errors
/// [`ChooseError::Unmeetable`] with the least value of each cost and the limits that bind; another [`ChooseError`] if the setting is not
/// usable.
/// # Source
/// ALGORITHMS 1.6, steps 1 to 3 \[ours\]; ranking by a surrogate is ours as well.
/// # Complexity
/// An expected accuracy per candidate, a lowering, a schedule and a latency for at most 1024 of those within the limits.
pub fn choose(setting: &Setting<'_>, given: &[(usize, Vec<Cell>)]) -> Result<Chosen, ChooseError> {
    setting.check()?;
    let stages = setting.space.stages.len();
    if let Some((_, cells)) = given.iter().find(|(_, cells)| cells.len() != stages) {
        return Err(PruneError::Stages { expected: stages, got: cells.len() }.into());
    }
    let pruned = prune(setting.space, setting.input, setting.num_classes, setting.stages, setting.limits);
    let (front, refused) = match pruned {
        Ok(pruned) => (pruned.front, None),
        Err(error @ (PruneError::LimitsUnmeetable { .. } | PruneError::Lower(_))) => (Vec::new(), Some(error)),
        Err(error) => return Err(error.into()),
    };
    let pricing = Pricing::new(setting).map_err(PruneError::from)?;
    let candidates: Vec<(Proposal, Cost)> = proposals(setting, given, &front)
        .into_iter()
        .filter_map(|proposal| pricing.quick(&proposal.cells()).map(|cost| (proposal, cost)))
        .collect();
    if let Some(error) = refused.clone().filter(|_| candidates.is_empty()) {
        return Err(error.into());
    }
    let within: Vec<&(Proposal, Cost)> = candidates.iter().filter(|(_, cost)| setting.limits.allow(cost)).collect();
    let kept = pricing.best(&within);
    if kept.is_empty() {
        let least = match refused {
            Some(PruneError::LimitsUnmeetable { smallest_macs, smallest_params, .. }) => {
                Some((smallest_macs, smallest_params))
            }
            _ => None,
        };
        return Err(Unmeetable::new(setting, least, &candidates, &pricing).into());
    }
    Ok(Chosen { n_candidates: candidates.len(), n_within: kept.len(), front: pareto(kept) })
}

/// Computes costs of a setting's networks.
pub(crate) struct Pricing<'a> {
    pub(crate) setting: &'a Setting<'a>,
    costs: SpaceCosts,
    peaks: RefCell<Peaks>,
}

/// Costs that take a lowered network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkCosts {
    pub(crate) peak_bytes: Option<u64>,
    pub(crate) latency: Option<crate::Latency>,
}

impl<'a> Pricing<'a> {
    pub(crate) fn new(setting: &'a Setting<'a>) -> Result<Self, LowerError> {
        let costs = SpaceCosts::new(setting.space, setting.input, setting.num_classes)?;
        Ok(Self { setting, costs, peaks: RefCell::default() })
    }

    /// Exact costs of the network with these cells; none where there is no such network.
    pub(crate) fn quick(&self, cells: &[Cell]) -> Option<Cost> {
        self.costs.of_cells(cells)
    }

    pub(crate) fn assemble(&self, cells: &[Cell]) -> Architecture {
        self.setting.space.assemble(self.setting.input, self.setting.num_classes, cells)
    }

    /// All that is known of a proposal, if it keeps every limit.
    pub(crate) fn price(&self, proposal: &Proposal) -> Option<Choice> {
        let limits = self.setting.limits;
        let network = self.assemble(&proposal.canonical()).lower().ok()?;
        let cost = network.cost();
        if !limits.allow(&cost) {
            return None;
        }
        let latency = self.setting.latency.and_then(|model| model.latency(&network));
        if !self.is_quick(latency) {
            return None;
        }
        let peak_bytes = self.peak_within(&network)?;
        let architecture = self.assemble(&proposal.cells());
        let expected = self.setting.accuracy.map(|model| model.expected(&architecture));
        let retained_weight = proposal.retained_weight();
        let origin = proposal.origin.clone();
        Some(Choice { architecture, origin, cost, peak_bytes, latency, expected, retained_weight })
    }

    fn peak_bytes(&self, network: &Network) -> Option<u64> {
        self.peaks.borrow_mut().peak_bytes(network, &self.setting.limits.memory).ok()
    }

    /// A peak within the limit; none if it is not known that there is one.
    fn peak_within(&self, network: &Network) -> Option<u64> {
        let found = self.peak_bytes(network)?;
        match self.setting.limits.max_peak_bytes.filter(|&most| found > most) {
            None => Some(found),
            // Where the search for the least peak is given up, one for an order within the limit may still find one.
            Some(most) => match gram_memory::fits(network, &self.setting.limits.memory, most) {
                Ok(Fit::Fits { peak_bytes }) => Some(peak_bytes),
                _ => None,
            },
        }
    }

    pub(crate) fn is_quick(&self, latency: Option<crate::Latency>) -> bool {
        self.setting.max_latency_ms.is_none_or(|most| latency.is_some_and(|latency| latency.high_ms <= most))
    }

    /// Costs of a proposal that breaks limits, perhaps.
    pub(crate) fn network_costs(&self, proposal: &Proposal) -> Option<NetworkCosts> {
        let network = self.assemble(&proposal.canonical()).lower().ok()?;
        let peak_bytes = self.peak_bytes(&network);
        Some(NetworkCosts { peak_bytes, latency: self.setting.latency.and_then(|model| model.latency(&network)) })
    }

    /// The first [`MAX_PRICED`] that keep all limits, layer by layer of what is undominated in merit, MACs and params.
    fn best(&self, within: &[&(Proposal, Cost)]) -> Vec<Choice> {
        let quick = |(index, (proposal, cost)): (usize, &&(Proposal, Cost))| {
            let merit = match self.setting.accuracy {
                Some(model) => model.expected(&self.assemble(&proposal.cells())).mean,
                None => proposal.retained_weight(),
            };
            Quick { index, cost: PartCost { macs: cost.macs, params: cost.params }, merit }
        };
        let mut rest: Vec<Quick> = within.iter().enumerate().map(quick).collect();
        let mut kept = Vec::new();
        while !rest.is_empty() && kept.len() < MAX_PRICED {
            let mut layer = rest.clone();
            keep_undominated(&mut layer);
            let mut is_taken = vec![false; within.len()];
            for quick in &layer {
                is_taken[quick.index] = true;
                if kept.len() < MAX_PRICED {
                    kept.extend(self.price(&within[quick.index].0));
                }
            }
            rest.retain(|quick| !is_taken[quick.index]);
        }
        kept
    }
}

/// A candidate, as far as it is ranked before it is lowered.
#[derive(Clone, Copy, Debug)]
struct Quick {
    index: usize,
    cost: PartCost,
    merit: f64,
}

impl Weighed for Quick {
    fn cost(&self) -> PartCost {
        self.cost
    }

    fn retained_weight(&self) -> f64 {
        self.merit
    }
}
