//! Settings of [`GramSearch`](super::GramSearch).

use serde::{Deserialize, Serialize};

use crate::surrogate::KernelRidgeConfig;

/// Settings of [`GramSearch`](super::GramSearch).
///
/// The defaults are ours. Founders, exploration, proposals, draws and optimism were compared on NAS-Bench-Macro and enas-dag; the others are
/// those of ALGORITHMS 1.5.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GramConfig {
    /// Evaluations before the surrogate is asked.
    pub founders: usize,
    /// Share of the proposals that are drawn from the meta-graph.
    pub exploration: f64,
    /// Chains start at this many of the best children at least.
    pub starts: usize,
    /// Chains start at more children until there are this many proposals to screen.
    pub proposals: usize,
    /// Moves of two edits at once that are drawn from each of the `starts` best children and screened besides; for hard limits, see
    /// `docs/headline-method.md`.
    pub pairs: usize,
    /// Further proposals, drawn from the meta-graph.
    pub draws: usize,
    /// Proposals are ranked by mean + `optimism` · sd.
    pub optimism: f64,
    /// Children of a lesson to the meta-graph.
    pub lesson: usize,
    /// Step of propagation, η.
    pub eta: f64,
    /// Smallest weight of a value, as a share of a uniform weight, ε.
    pub epsilon: f64,
    /// Who of a child's class is taught.
    pub credit: ClassCredit,
    /// Share of a lesson that goes, along the meta-graph, to all decisions between the same values alike, `0..=1`.
    pub roles: f64,
    /// The surrogate's.
    pub surrogate: KernelRidgeConfig,
}

/// What a child of a class teaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassCredit {
    /// All members of its class in equal parts, so that it does not matter which of them was evaluated.
    #[default]
    Members,
    /// The member that was evaluated.
    Own,
    /// Nothing: draws stay uniform.
    Nothing,
}

impl Default for GramConfig {
    fn default() -> Self {
        Self {
            founders: 5,
            exploration: 0.05,
            starts: 3,
            proposals: 100,
            pairs: 0,
            draws: 300,
            optimism: 1.0,
            lesson: 16,
            eta: 0.2,
            epsilon: 0.02,
            credit: ClassCredit::Members,
            roles: 0.0,
            surrogate: KernelRidgeConfig::default(),
        }
    }
}

impl GramConfig {
    /// Settings for studies of `n_children`: their decisions are many, their scores noisy and their limits hard, so that a search that follows
    /// its first good child too soon stays beside it. A quarter of the children, 5 to 16, are founders.
    ///
    /// By evidence on CIFAR-10, `docs/headline-method.md`; \[ours\].
    pub fn for_study(n_children: usize) -> Self {
        Self {
            founders: (n_children / 4).clamp(5, 16),
            starts: 10,
            pairs: 300,
            draws: 1000,
            optimism: 3.0,
            surrogate: KernelRidgeConfig { noises: vec![0.1, 0.3, 1.0], ..KernelRidgeConfig::default() },
            ..Self::default()
        }
    }

    /// Everything that is out of range, a line for each.
    ///
    /// # Errors
    /// [`GramConfigError`].
    pub fn verify(&self) -> Result<(), GramConfigError> {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let rules = [
            (self.founders >= 2, "founders: must be 2 or more"),
            (share(self.exploration), "exploration: must be between 0 and 1"),
            (self.starts >= 1, "starts: must be 1 or more"),
            (
                [self.proposals, self.pairs, self.draws].iter().all(|&n| n <= 100_000),
                "proposals, pairs, draws: must be 100,000 or less",
            ),
            (self.optimism.is_finite() && self.optimism >= 0.0, "optimism: must be 0 or more"),
            (self.lesson >= 2, "lesson: must be 2 or more"),
            (
                share(self.eta) && share(self.epsilon) && share(self.roles),
                "eta, epsilon, roles: must be between 0 and 1",
            ),
            (
                self.surrogate.is_usable(),
                "surrogate: choice_shares must be between 0 and 1, noises above 0, and there must be one of each",
            ),
        ];
        let broken: Vec<&str> = rules.into_iter().filter(|(holds, _)| !holds).map(|(_, message)| message).collect();
        if broken.is_empty() { Ok(()) } else { Err(GramConfigError(broken)) }
    }
}

/// What is wrong with a [`GramConfig`], a line for each rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the settings of gram are not usable: {}", .0.join("; "))]
pub struct GramConfigError(Vec<&'static str>);
