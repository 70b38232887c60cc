//! Warm starts: an earlier study's meta-graph, and the copy of it that a study keeps.

use std::path::{Path, PathBuf};

use gram_meta::MetaGraph;
use gram_search::WarmStart;

use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::{read_text, save};
use crate::study::config::WarmStartConfig;

/// An earlier study's meta-graph.
pub(crate) struct WarmSource {
    pub(crate) meta: MetaGraph,
    pub(crate) start: WarmStart,
    text: String,
}

/// The study's own copy: the source may be changed or deleted before the study has ended.
pub(crate) fn copy(study: &Path) -> PathBuf {
    study.join("warm-start.json")
}

impl WarmSource {
    /// Reads what the configuration names or, where that is gone, the study's copy of it.
    ///
    /// # Errors
    /// Exit code 4 for a file that cannot be read or is no meta-graph, 2 if it is another one than the study began with.
    pub(crate) fn read(config: &WarmStartConfig, study: &Path) -> Result<Self> {
        let named = Path::new(&config.path);
        let named = if named.is_dir() { named.join("meta-graph.json") } else { named.to_owned() };
        let (path, copy) = (if named.exists() { &named } else { &copy(study) }, copy(study));
        if !path.exists() {
            return Err(Failure::new(Kind::Data, format!("warm start: there is no {}", named.display())));
        }
        let text = read_text(path)?;
        if copy.exists() && read_text(&copy)? != text {
            let message = format!(
                "{} is not the meta-graph that the study in {} began with; to go on with that one, give {}",
                path.display(),
                study.display(),
                copy.display()
            );
            return Err(Failure::new(Kind::Usage, message));
        }
        let meta = MetaGraph::from_json(&text).or_fail_with(Kind::Data, path.display())?;
        let digest = WarmStart::digest_of(&meta).or_fail(Kind::Internal)?;
        Ok(Self { meta, start: WarmStart { digest, rho: config.rho }, text })
    }

    /// Keeps the copy.
    pub(crate) fn save(&self, study: &Path) -> Result<()> {
        if copy(study).exists() { Ok(()) } else { save(&copy(study), self.text.as_bytes()) }
    }
}
