//! What a study's folder says: its configuration, its meta-graph, the children that it trained.

use std::path::{Path, PathBuf};

use gram_meta::MetaGraph;
use gram_search::{
    ExpectedAccuracy, ExpectedError, Gate, Record, StudyConfig, TrainedChild, read_journal, trained_children,
};

use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::read_text;
use crate::output;

/// A study as it stands; it may be unfinished.
pub(super) struct StudyOf {
    pub(super) dir: PathBuf,
    pub(super) config: StudyConfig,
    pub(super) meta: MetaGraph,
    /// In the order in which they were trained.
    pub(super) children: Vec<TrainedChild>,
}

impl StudyOf {
    /// Reads journal and meta-graph; a strategy that keeps none has the untouched one.
    ///
    /// # Errors
    /// Exit code 4 for a folder without a study and for damaged files.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let file = dir.join("journal.jsonl");
        let records = read_journal(&file).or_fail(Kind::Data)?;
        let Some(Record::Header { config, .. }) = records.first() else {
            return Err(Failure::new(Kind::Data, format!("{}: no study", dir.display())));
        };
        let config: StudyConfig =
            serde_json::from_value(config["study"].clone()).or_fail_with(Kind::Data, file.display())?;
        let meta = meta_graph(dir, &config)?;
        let gate = gate(&config);
        let children = trained_children(&records, &meta, &gate);
        let n_trained = records.iter().filter(|record| matches!(record, Record::Child(_))).count();
        if children.len() < n_trained {
            output::note(format_args!(
                "{} of {n_trained} children are left out: the journal, of an earlier build, holds their wiring, but not their operators",
                n_trained - children.len()
            ));
        }
        Ok(Self { dir: dir.to_owned(), config, meta, children })
    }

    /// A model of validation top-1; none, and a note, where too few children were trained.
    pub(super) fn expected_accuracy(&self) -> Result<Option<ExpectedAccuracy>> {
        match ExpectedAccuracy::fit(&self.meta, &gate(&self.config), &self.children) {
            Ok(model) => Ok(Some(model)),
            Err(error @ ExpectedError::Lower(_)) => Err(Failure { kind: Kind::Data, error: error.into() }),
            Err(error) => {
                output::note(format_args!("no accuracy is expected, networks are ranked by retained weight: {error}"));
                Ok(None)
            }
        }
    }
}

fn gate(config: &StudyConfig) -> Gate<'_> {
    let StudyConfig { space, input, num_classes, limits, .. } = config;
    Gate { space, input: *input, num_classes: *num_classes, limits, latency: None }
}

fn meta_graph(dir: &Path, config: &StudyConfig) -> Result<MetaGraph> {
    let file = dir.join("meta-graph.json");
    if !file.is_file() {
        output::note(
            "the study has no meta-graph yet, or its strategy keeps none: thresholds are those of an untouched one",
        );
        return config.initial_meta_graph().or_fail_with(Kind::Data, dir.display());
    }
    let meta = MetaGraph::from_json(&read_text(&file)?).or_fail_with(Kind::Data, file.display())?;
    meta.check_space(&config.space).or_fail_with(Kind::Data, file.display())?;
    Ok(meta)
}
