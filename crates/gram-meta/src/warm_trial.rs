//! A warm start on trial: the source must prove itself in one round.

use crate::{MetaGraph, WarmStartError};

/// A cold and a warm prior, between which the scores of one round decide.
///
/// A warm start may mislead: a source that believes the opposite of what is true holds a search up for longer than a cold start takes,
/// since weights feed their own prior. So the children of the first round come from both priors in turn, and the prior whose children
/// score better in the mean goes on. A bad source then costs half a round, a good one loses half a round.
///
/// # Source
/// \[ours\]; the aim, no lock-in by negative transfer, is that of ALGORITHMS F3.
/// # Example
/// ```
/// # use gram_ir::space_preset;
/// # use gram_meta::{Child, MetaConfig, MetaGraph, WARM_START_RHO, WarmTrial};
/// # use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// # let space = space_preset("swiftnet-small").unwrap();
/// # let (cold, source) = (MetaGraph::new(&space, MetaConfig::default(), 1)?, MetaGraph::new(&space, MetaConfig::default(), 2)?);
/// # let score = |child: &Child| child.stages()[0].n_edges() as f64 / 28.0;
/// # let mut rng = ChaCha8Rng::seed_from_u64(7);
/// let trial = WarmTrial::new(cold, &source, WARM_START_RHO)?;
/// let children = (0..16).map(|k| trial.prior(k).sample(&mut rng, &|_| true)).collect::<Result<Vec<_>, _>>()?;
/// let scores: Vec<Option<f64>> = children.iter().map(|child| Some(score(child))).collect();
/// let settled = trial.settle(&scores);
/// assert!(settled.is_warm == (settled.mean_warm >= settled.mean_cold));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct WarmTrial {
    cold: MetaGraph,
    warm: MetaGraph,
}

/// What a trial came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The prior to go on with.
    pub meta: MetaGraph,
    /// Whether it is the warm one.
    pub is_warm: bool,
    /// Mean score of the warm prior's children; none if none has a score.
    pub mean_warm: Option<f64>,
    /// Mean score of the cold prior's children; none if none has a score.
    pub mean_cold: Option<f64>,
}

impl WarmTrial {
    /// Puts [`MetaGraph::warm_start`] of `cold` from `source` on trial.
    ///
    /// # Errors
    /// [`WarmStartError`] as for the warm start.
    pub fn new(cold: MetaGraph, source: &MetaGraph, rho: f64) -> Result<Self, WarmStartError> {
        let warm = cold.warm_start(source, rho)?;
        Ok(Self { cold, warm })
    }

    /// The prior from which child number `k` of the round is to be drawn: the warm one for 0, 2, …, the cold one for 1, 3, ….
    pub fn prior(&self, k: usize) -> &MetaGraph {
        if Self::is_warm(k) { &self.warm } else { &self.cold }
    }

    /// Whether child number `k` comes from the warm prior. The prior that goes on may be taught by its own children of the round, not by
    /// the others', which it would not have drawn.
    pub const fn is_warm(k: usize) -> bool {
        k.is_multiple_of(2)
    }

    /// Decides by the scores of the round, in the order of its children: warm if the mean is at least as good. Children without a (finite)
    /// score do not count; a prior without any counts as worse, and the cold one goes on if neither has any.
    pub fn settle(self, scores: &[Option<f64>]) -> Settled {
        let mean = |warm: bool| {
            let own = scores.iter().enumerate().filter(|(k, _)| Self::is_warm(*k) == warm);
            let (sum, n) = own
                .filter_map(|(_, score)| score.filter(|score| score.is_finite()))
                .fold((0.0, 0), |(sum, n), score| (sum + score, n + 1));
            (n > 0).then(|| sum / f64::from(n))
        };
        let (mean_warm, mean_cold) = (mean(true), mean(false));
        // None is below every score.
        let is_warm = mean_warm.is_some() && mean_warm >= mean_cold;
        let meta = if is_warm { self.warm } else { self.cold };
        Settled { meta, is_warm, mean_warm, mean_cold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta_graph::tests::meta;

    fn trial() -> WarmTrial {
        let (cold, mut source) = (meta(&[4]), meta(&[4]));
        source.stages[0].weights.values_mut().fill(0.9);
        WarmTrial::new(cold, &source, 0.5).unwrap()
    }

    #[test]
    fn the_better_prior_goes_on() {
        let settled = |scores: &[Option<f64>]| {
            let Settled { meta, is_warm, .. } = trial().settle(scores);
            assert_eq!(&meta, trial().prior(usize::from(!is_warm)));
            is_warm
        };
        assert!(settled(&[Some(0.6), Some(0.5), Some(0.5), Some(0.4)]));
        assert!(!settled(&[Some(0.6), Some(0.7), Some(0.5), Some(0.6)]));
        assert!(settled(&[Some(0.5), Some(0.5)]), "as good");
        assert!(settled(&[Some(0.5), None, None, Some(f64::NAN)]));
        assert!(!settled(&[None, Some(0.1)]) && !settled(&[None, None]) && !settled(&[]));
        let means = trial().settle(&[Some(0.25), Some(1.0), Some(0.75)]);
        assert_eq!((means.mean_warm, means.mean_cold), (Some(0.5), Some(1.0)));
    }
}
