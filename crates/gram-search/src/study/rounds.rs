//! The rounds of a study: ask, evaluate, write down, tell.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gram_ir::{CanonicalKey, NodeOperators};

use super::{ChildRecord, Record, RoundRecord, Run, StopReason, Study, StudyError};
use crate::files::{AtPath, write_atomic};
use crate::halving::evaluate_round;
use crate::inherit::Sources;
use crate::report::{pareto_front, pareto_json, ranked};
use crate::{
    AskError, Candidate, ChildSummary, Context, EvalKey, Evaluation, EvaluatorError, Gate, Halving, Job, Outcome,
    Progress, Proposal, Source, Strategy, StudyReport, child_seed, preflight,
};

/// A study while it runs.
pub(super) struct Rounds<'s, 'r> {
    study: &'s mut Study,
    strategy: &'s mut dyn Strategy,
    run: Run<'r>,
    /// Children in the journal, in order.
    children: Vec<ChildSummary>,
    /// Score of every graph in `children`.
    scores: BTreeMap<CanonicalKey, Option<f64>>,
    /// Whose weights others may start from.
    sources: Sources,
    n_rounds: usize,
    n_cache_hits: usize,
    n_evaluated_now: usize,
}

/// How a part of a run ended.
enum Flow {
    Go,
    Stop(StopReason),
}

impl<'s, 'r> Rounds<'s, 'r> {
    pub(super) fn new(study: &'s mut Study, strategy: &'s mut dyn Strategy, run: Run<'r>) -> Self {
        Self {
            study,
            strategy,
            run,
            children: Vec::new(),
            scores: BTreeMap::new(),
            sources: Sources::default(),
            n_rounds: 0,
            n_cache_hits: 0,
            n_evaluated_now: 0,
        }
    }

    pub(super) fn run(mut self) -> Result<StudyReport, StudyError> {
        let stop = self.rounds()?;
        if stop != StopReason::Interrupted {
            let (n_children, n_rounds) = (self.children.len(), self.n_rounds);
            self.study.journal.append(&Record::Stop { reason: stop, n_children, n_rounds })?;
            self.study.journal.finish()?;
            self.strategy.finish(self.run.pruned)?;
        }
        let report = self.report(stop);
        if stop == StopReason::Interrupted && self.study.journal.is_replaying() {
            // What stands in the files is of a later state than the one that the replay has come to.
            return Ok(report);
        }
        self.write_meta_graph()?;
        let path = self.study.directory.join("pareto.json");
        write_atomic(&path, &pareto_json(&report).map_err(StudyError::Encode)?)?;
        Ok(report)
    }

    fn rounds(&mut self) -> Result<StopReason, StudyError> {
        let config = &self.study.config;
        preflight(&config.space, config.input, config.num_classes, &config.limits, config.seed)?.require()?;
        if let Flow::Stop(reason) = self.start()? {
            return Ok(reason);
        }
        loop {
            if let Flow::Stop(reason) = self.round()? {
                return Ok(reason);
            }
        }
    }

    fn start(&mut self) -> Result<Flow, StudyError> {
        let prior = self.with_context(|strategy, context| strategy.start(context));
        match prior {
            Ok(Some(prior)) => {
                self.study.journal.append(&Record::Prior(prior))?;
                if let Some(share) = prior.tilt {
                    self.run.observer.note(&format!(
                        "limits are very tight: children are drawn near the cheapest one (share {share}), {:.1} % of draws keep the limits",
                        100.0 * prior.acceptance
                    ));
                } else if prior.factor < 1.0 {
                    self.run.observer.note(&format!(
                        "limits are tight: initial edge weights times {}, {:.1} % of draws keep the limits",
                        prior.factor,
                        100.0 * prior.acceptance
                    ));
                }
                Ok(Flow::Go)
            }
            Ok(None) => Ok(Flow::Go),
            Err(AskError::Interrupted) => Ok(Flow::Stop(StopReason::Interrupted)),
            Err(error) => Err(error.into()),
        }
    }

    fn round(&mut self) -> Result<Flow, StudyError> {
        if self.is_interrupted() {
            return Ok(Flow::Stop(StopReason::Interrupted));
        }
        let remaining = self.study.config.n_children.saturating_sub(self.children.len());
        if remaining == 0 {
            return Ok(Flow::Stop(StopReason::BudgetSpent));
        }
        // Shared out evenly: a last round of one child would have nothing to compare it with.
        let n_new = remaining.div_ceil(remaining.div_ceil(self.study.config.children_per_round));
        let proposals = match self.with_context(|strategy, context| strategy.ask(n_new, context)) {
            Ok(proposals) => proposals,
            Err(AskError::Interrupted) => return Ok(Flow::Stop(StopReason::Interrupted)),
            Err(AskError::Sample(error)) if !self.children.is_empty() => {
                self.run.observer.note(&format!("round {}: {error}", self.n_rounds));
                return Ok(Flow::Stop(StopReason::SpaceExhausted));
            }
            Err(error) => return Err(error.into()),
        };
        let graphs: Vec<CanonicalKey> = proposals.iter().map(|proposal| proposal.graph().clone()).collect();
        let new: Vec<Candidate> = proposals
            .into_iter()
            .filter_map(|proposal| match proposal {
                Proposal::New(candidate) => Some(*candidate),
                Proposal::Repeat(_) => None,
            })
            .collect();
        if new.is_empty() {
            return Ok(Flow::Stop(StopReason::SpaceExhausted));
        }
        let before = self.children.len();
        if !self.evaluate(new)? {
            return Ok(Flow::Stop(StopReason::Interrupted));
        }
        self.tell(&graphs, before)
    }

    /// Evaluates a round's new children and writes them down in their order. False if interrupted.
    fn evaluate(&mut self, new: Vec<Candidate>) -> Result<bool, StudyError> {
        let mut batch = Batch::new(self, new)?;
        batch.write_down(self)?;
        match self.run.evaluator.halving() {
            None => self.evaluate_each(&mut batch),
            Some(halving) => self.evaluate_together(&mut batch, halving),
        }
    }

    /// Evaluates a round whose children are compared on their way; they are written down when all of them are over. What is kept to go on
    /// from is then removed, and also if all of them were known.
    fn evaluate_together(&mut self, batch: &mut Batch, halving: &Halving) -> Result<bool, StudyError> {
        let Run { executor, evaluator, interrupt, .. } = self.run;
        let (jobs, places) = batch.missing();
        if !jobs.is_empty() {
            let ended = evaluate_round(halving, &jobs, evaluator, executor, interrupt);
            let ended = ended.map_err(|(index, source)| StudyError::Evaluation {
                child: jobs[index].child,
                key: jobs[index].key,
                source,
            })?;
            let Some(evaluations) = ended else { return Ok(false) };
            for (place, evaluation) in places.into_iter().zip(evaluations) {
                batch.store(place, evaluation, self)?;
            }
        }
        batch.items.iter().for_each(|item| evaluator.forget(item.key));
        Ok(batch.is_complete())
    }

    fn evaluate_each(&mut self, batch: &mut Batch) -> Result<bool, StudyError> {
        let (jobs, places) = batch.missing();
        let (executor, evaluator, interrupt) = (self.run.executor, self.run.evaluator, self.run.interrupt);
        let mut failure: Option<StudyError> = None;
        executor.run(&jobs, evaluator, interrupt, &mut |index, ended| {
            let stored = match ended {
                Ok(evaluation) => batch.store(places[index], evaluation, self),
                Err(EvaluatorError::Interrupted) => Ok(()),
                Err(source) => Err(StudyError::Evaluation { child: jobs[index].child, key: jobs[index].key, source }),
            };
            match stored {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure.get_or_insert(error);
                    ControlFlow::Break(())
                }
            }
        });
        match failure {
            Some(error) => Err(error),
            None => Ok(batch.is_complete()),
        }
    }

    fn tell(&mut self, graphs: &[CanonicalKey], before: usize) -> Result<Flow, StudyError> {
        let scores: Vec<Option<f64>> = graphs.iter().map(|graph| self.scores.get(graph).copied().flatten()).collect();
        let lesson = self.strategy.tell(&scores, self.run.pruned)?;
        let new = &self.children[before..];
        let is_stopped = |child: &&ChildSummary| matches!(child.outcome, Outcome::Stopped { .. });
        let record = RoundRecord {
            round: self.n_rounds,
            n_new: new.len(),
            n_repeats: graphs.len() - new.len(),
            n_diverged: new.iter().filter(|child| child.outcome.validation_top1().is_none()).count(),
            n_stopped: new.iter().filter(is_stopped).count(),
            best_validation_top1: self.best(),
            lesson,
        };
        self.n_rounds += 1;
        self.n_cache_hits += record.n_repeats;
        self.study.journal.append(&Record::Round(record.clone()))?;
        if !self.study.journal.is_replaying() {
            self.write_meta_graph()?;
        }
        self.run.observer.round_done(&record);
        match lesson.and_then(|lesson| lesson.converged) {
            Some(test) => Ok(Flow::Stop(StopReason::Converged(test))),
            None => Ok(Flow::Go),
        }
    }

    fn with_context<T>(&mut self, act: impl FnOnce(&mut dyn Strategy, &Context<'_>) -> T) -> T {
        let config = &self.study.config;
        let gate = Gate {
            space: &config.space,
            input: config.input,
            num_classes: config.num_classes,
            limits: &config.limits,
            latency: self.run.latency.as_ref(),
        };
        let is_seen = |graph: &CanonicalKey| self.scores.contains_key(graph);
        let context =
            Context { gate, seed: config.seed, round: self.n_rounds, is_seen: &is_seen, interrupt: self.run.interrupt };
        act(self.strategy, &context)
    }

    fn is_interrupted(&self) -> bool {
        self.run.interrupt.load(Ordering::Relaxed)
    }

    fn best(&self) -> Option<f64> {
        self.children.iter().filter_map(|child| child.outcome.validation_top1()).reduce(f64::max)
    }

    fn write_meta_graph(&self) -> Result<(), StudyError> {
        if let Some(meta) = self.strategy.meta_graph() {
            write_atomic(&self.study.directory.join("meta-graph.json"), &meta.to_json()?)?;
        }
        Ok(())
    }

    fn report(&self, stop: StopReason) -> StudyReport {
        StudyReport {
            stop,
            n_children: self.children.len(),
            n_diverged: self.children.iter().filter(|child| child.outcome.validation_top1().is_none()).count(),
            n_rounds: self.n_rounds,
            n_cache_hits: self.n_cache_hits,
            n_evaluated_now: self.n_evaluated_now,
            best: ranked(&self.children),
            pareto: pareto_front(&self.children),
            meta_graph: self.strategy.meta_graph().cloned(),
        }
    }
}

/// A round's new children on their way into the journal.
struct Batch {
    items: Vec<Item>,
    /// So many of them are in the journal.
    n_written: usize,
    /// Children whose outcome is known, those of earlier rounds among them.
    n_done: usize,
    best: Option<f64>,
}

struct Item {
    candidate: Candidate,
    child: usize,
    key: EvalKey,
    seed: u64,
    source: Option<Source>,
    outcome: Option<Outcome>,
}

impl Batch {
    /// Takes outcomes from the journal or from `results/` where they are there. Of children that are evaluated together all are taken or none:
    /// what some of them come to depends on all.
    fn new(rounds: &mut Rounds<'_, '_>, new: Vec<Candidate>) -> Result<Self, StudyError> {
        let first = rounds.children.len() + 1;
        let mut batch = Self { items: Vec::new(), n_written: 0, n_done: first - 1, best: rounds.best() };
        let study = &*rounds.study;
        let together = rounds.run.evaluator.halving().is_some();
        let inherits = rounds.run.evaluator.inherits();
        let alone = |candidate: &Candidate| {
            let seed = child_seed(study.config.seed, &candidate.graph);
            let key = EvalKey::new(&candidate.graph, &study.identity, seed);
            // Nothing of this round is among the sources yet.
            let source = if inherits { rounds.sources.nearest(&candidate.network) } else { None };
            (source.map_or(key, |source| key.inheriting(source.key)), seed, source)
        };
        let alone: Vec<(EvalKey, u64, Option<Source>)> = new.iter().map(alone).collect();
        let keys: Vec<EvalKey> = alone.iter().map(|(key, ..)| *key).collect();
        for (index, (candidate, (alone, seed, source))) in new.into_iter().zip(alone).enumerate() {
            let key = if together { alone.among(&keys) } else { alone };
            let outcome = match study.known.get(&key) {
                Some(outcome) => Some(study.results.settle(key, outcome)?),
                None => study.results.get(key)?,
            };
            batch.items.push(Item { candidate, child: first + index, key, seed, source, outcome });
        }
        if together && batch.items.iter().any(|item| item.outcome.is_none()) {
            batch.items.iter_mut().for_each(|item| item.outcome = None);
        }
        for index in 0..batch.items.len() {
            if let Some(outcome) = &batch.items[index].outcome {
                let validation_top1 = outcome.validation_top1();
                batch.observe(validation_top1, None, rounds);
            }
        }
        Ok(batch)
    }

    /// Evaluations to do, and the item that each is for.
    fn missing(&self) -> (Vec<Job>, Vec<usize>) {
        let missing = self.items.iter().enumerate().filter(|(_, item)| item.outcome.is_none());
        let job = |item: &Item| Job {
            child: item.child,
            architecture: item.candidate.architecture.clone(),
            network: item.candidate.network.clone(),
            key: item.key,
            seed: item.seed,
            source: item.source,
        };
        missing.map(|(place, item)| (job(item), place)).unzip()
    }

    fn is_complete(&self) -> bool {
        self.n_written == self.items.len()
    }

    /// Stores an outcome under its key, then writes down what is due.
    fn store(&mut self, place: usize, evaluation: Evaluation, rounds: &mut Rounds<'_, '_>) -> Result<(), StudyError> {
        let Evaluation { outcome, duration } = evaluation;
        let item = &mut self.items[place];
        rounds.study.results.put(item.key, &outcome)?;
        append_timing(&rounds.study.directory, item, duration)?;
        rounds.n_evaluated_now += 1;
        let validation_top1 = outcome.validation_top1();
        item.outcome = Some(outcome);
        self.observe(validation_top1, Some(duration), rounds);
        self.write_down(rounds)
    }

    /// Appends to the journal, in order of submission, what is known without a gap.
    fn write_down(&mut self, rounds: &mut Rounds<'_, '_>) -> Result<(), StudyError> {
        while let Some(item) = self.items.get(self.n_written) {
            let Some(outcome) = item.outcome.clone() else { break };
            let cost = item.candidate.cost;
            let is_searched = rounds.study.config.space.node_operators == NodeOperators::Searched;
            rounds.study.journal.append(&Record::Child(ChildRecord {
                child: item.child,
                round: rounds.n_rounds,
                key: item.key,
                graph: blake3::hash(item.candidate.graph.as_bytes()).to_hex().to_string(),
                seed: item.seed,
                source: item.source.map(|source| source.child),
                edges: item.candidate.edges(),
                ops: if is_searched { item.candidate.ops() } else { Vec::new() },
                layout: item.candidate.blueprint.layout.clone(),
                macs: cost.macs.0,
                params: cost.params.0,
                deployed_params: cost.deployed_params.0,
                outcome: outcome.clone(),
            }))?;
            if rounds.run.evaluator.inherits() && matches!(outcome, Outcome::Scored { .. }) {
                let source = Source { child: item.child, key: item.key };
                rounds.sources.add(source, &item.candidate.network);
            }
            rounds.scores.insert(item.candidate.graph.clone(), outcome.score());
            rounds.children.push(ChildSummary {
                child: item.child,
                round: rounds.n_rounds,
                key: item.key,
                architecture: item.candidate.architecture.clone(),
                cost,
                outcome,
            });
            self.n_written += 1;
        }
        Ok(())
    }

    fn observe(&mut self, validation_top1: Option<f64>, duration: Option<Duration>, rounds: &mut Rounds<'_, '_>) {
        self.n_done += 1;
        self.best = self.best.into_iter().chain(validation_top1).reduce(f64::max);
        rounds.run.observer.child_done(&Progress {
            n_done: self.n_done,
            n_total: rounds.study.config.n_children,
            validation_top1,
            best_validation_top1: self.best,
            duration,
        });
    }
}

fn append_timing(directory: &Path, item: &Item, duration: Duration) -> Result<(), StudyError> {
    let path = directory.join("timings.jsonl");
    let line = serde_json::json!({ "child": item.child, "key": item.key, "seconds": duration.as_secs_f64() });
    let mut file = OpenOptions::new().create(true).append(true).open(&path).at(&path)?;
    Ok(file.write_all(format!("{line}\n").as_bytes()).at(&path)?)
}
