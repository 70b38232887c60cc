//! Hyper-parameters of the meta-graph.

use serde::{Deserialize, Serialize};

/// Hyper-parameters of propagation, tempering and the convergence test.
///
/// The paper's text does not give them; the defaults are those of ALGORITHMS 1.5 \[ours\].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetaConfig {
    /// ε: every edge weight stays in `[ε, 1 − ε]`, so that no edge is ever lost for good; 0.02.
    pub epsilon: f64,
    /// K: children that are propagated together; 16.
    pub children_per_lesson: usize,
    /// η: how far one lesson moves the weights towards its children, in `(0, 1]`; 0.2.
    pub eta: f64,
    /// Largest inverse temperature β for scores in `0..=1`; 200.
    pub beta_cap: f64,
    /// The search has converged when the mean entropy of an edge is at most this many bits; 0.20.
    pub entropy_stop_bits: f64,
    /// … or when the pruned child has been the same for so many lessons (10) and
    pub stable_rounds: usize,
    /// the moving average of the largest change of a weight is below this; 0.01.
    pub stable_change: f64,
    /// The search ends after so many lessons in any case: no bound is proved for the method; 200.
    pub max_rounds: usize,
}

impl Default for MetaConfig {
    fn default() -> Self {
        Self {
            epsilon: 0.02,
            children_per_lesson: 16,
            eta: 0.2,
            beta_cap: 200.0,
            entropy_stop_bits: 0.20,
            stable_rounds: 10,
            stable_change: 0.01,
            max_rounds: 200,
        }
    }
}

impl MetaConfig {
    /// Everything that is out of range.
    ///
    /// # Errors
    /// [`MetaConfigError`] with one line per field.
    pub fn verify(&self) -> Result<(), MetaConfigError> {
        let rules = [
            (self.epsilon > 0.0 && self.epsilon < 0.5, format!("epsilon: {} is not between 0 and 0.5", self.epsilon)),
            (
                self.children_per_lesson >= 2,
                "children_per_lesson: must be 2 or more, for a lesson compares its children".into(),
            ),
            (self.eta > 0.0 && self.eta <= 1.0, format!("eta: {} is not above 0 and at most 1", self.eta)),
            (
                self.beta_cap > 0.0 && self.beta_cap <= 1e6,
                format!("beta_cap: {} is not above 0 and at most 1e6", self.beta_cap),
            ),
            (
                (0.0..=1.0).contains(&self.entropy_stop_bits),
                format!("entropy_stop_bits: {} is not between 0 and 1", self.entropy_stop_bits),
            ),
            (self.stable_rounds >= 1, "stable_rounds: must be 1 or more".into()),
            (
                (0.0..=1.0).contains(&self.stable_change),
                format!("stable_change: {} is not between 0 and 1", self.stable_change),
            ),
            (self.max_rounds >= 1, "max_rounds: must be 1 or more".into()),
        ];
        let broken: Vec<String> = rules.into_iter().filter(|(holds, _)| !holds).map(|(_, message)| message).collect();
        if broken.is_empty() { Ok(()) } else { Err(MetaConfigError(broken)) }
    }
}

/// What is wrong with a [`MetaConfig`], one line per field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the meta-graph's configuration is not usable: {}", .0.join("; "))]
pub struct MetaConfigError(pub Vec<String>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_out_of_range_is_named() {
        assert_eq!(MetaConfig::default().verify(), Ok(()));
        let bad = MetaConfig {
            epsilon: 0.5,
            children_per_lesson: 1,
            eta: 0.0,
            beta_cap: f64::NAN,
            entropy_stop_bits: -1.0,
            stable_rounds: 0,
            stable_change: 2.0,
            max_rounds: 0,
        };
        let message = bad.verify().unwrap_err().to_string();
        let fields = [
            "epsilon",
            "children_per_lesson",
            "eta",
            "beta_cap",
            "entropy_stop_bits",
            "stable_rounds",
            "stable_change",
        ];
        for field in fields.into_iter().chain(["max_rounds"]) {
            assert!(message.contains(&format!("{field}:")), "{message}");
        }
    }

    #[test]
    fn missing_fields_take_their_defaults_and_unknown_ones_are_refused() {
        let config: MetaConfig = serde_json::from_str(r#"{"eta": 0.1}"#).unwrap();
        assert_eq!(config, MetaConfig { eta: 0.1, ..MetaConfig::default() });
        assert!(serde_json::from_str::<MetaConfig>(r#"{"etta": 0.1}"#).is_err());
    }
}
