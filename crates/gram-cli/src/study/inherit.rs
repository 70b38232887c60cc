//! `ckpt/weights/`: what trained children leave for others to start from, while their study searches.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use gram_export::files::write_atomic;
use gram_ir::Weights;
use gram_search::{EvalKey, EvaluatorError, Source};
use gram_train::weights_digest;

/// Metadata of a file: blake3 of the evaluation's key and its weights, [`digest`].
const DIGEST: &str = "gram-digest";

/// The store of weights by evaluation.
pub(crate) struct KeptWeights {
    folder: PathBuf,
    is_on: AtomicBool,
}

impl KeptWeights {
    /// The store in `folder`, which need not exist; it keeps nothing if it is not `on`.
    pub(crate) fn new(folder: PathBuf, on: bool) -> Self {
        Self { folder, is_on: AtomicBool::new(on) }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Removes all that is there and keeps nothing from now on: the search is over.
    pub(crate) fn close(&self) {
        self.is_on.store(false, Ordering::Relaxed);
        // A leftover would only cost space.
        let _ = fs::remove_dir_all(&self.folder);
    }

    fn file(&self, key: EvalKey) -> PathBuf {
        self.folder.join(format!("{key}.safetensors"))
    }

    /// Keeps the weights that an evaluation has come to, whole or not at all.
    pub(crate) fn save(&self, key: EvalKey, weights: &Weights) -> Result<(), EvaluatorError> {
        if !self.is_on() {
            return Ok(());
        }
        let file = self.file(key);
        let failed = |error: String| EvaluatorError::new(format!("keeping weights in {}: {error}", file.display()));
        let metadata = BTreeMap::from([(DIGEST.to_owned(), digest(key, weights))]);
        let bytes = gram_export::write_safetensors(weights, &metadata).map_err(|error| failed(error.to_string()))?;
        fs::create_dir_all(&self.folder).map_err(|error| failed(error.to_string()))?;
        write_atomic(&file, &bytes).map_err(|error| failed(error.to_string()))
    }

    /// The weights of a child.
    ///
    /// # Errors
    /// Where they are missing, damaged or another child's: starting from anything else would be another study.
    pub(crate) fn read(&self, source: Source) -> Result<Weights, EvaluatorError> {
        let file = self.file(source.key);
        let unusable = |why: String| {
            EvaluatorError::new(format!(
                "it starts from the weights of child {}, and {}: {why}; put the file back, or begin in another folder",
                source.child,
                file.display()
            ))
        };
        let bytes = fs::read(&file).map_err(|error| unusable(error.to_string()))?;
        let weights = gram_export::read_safetensors(&bytes).map_err(|error| unusable(error.to_string()))?;
        let metadata = gram_export::read_safetensors_metadata(&bytes).map_err(|error| unusable(error.to_string()))?;
        if metadata.get(DIGEST) != Some(&digest(source.key, &weights)) {
            return Err(unusable("it is damaged, or not of this child".into()));
        }
        Ok(weights)
    }
}

fn digest(key: EvalKey, weights: &Weights) -> String {
    blake3::hash(format!("{key} {}", weights_digest(weights)).as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gram_ir::{Cell, Tensor};

    #[test]
    fn weights_come_back_or_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptWeights::new(folder.path().join("weights"), true);
        let source = |child: usize| Source { child, key: EvalKey::new(&Cell::new().canonical_key(), "", child as u64) };
        let mut weights = Weights::new();
        weights.insert("conv.weight", Tensor::new(vec![2], vec![f64::from(0.1_f32), -0.0]).unwrap());
        kept.save(source(1).key, &weights).unwrap();
        assert_eq!(kept.read(source(1)).unwrap(), weights);
        let refused = |child: usize, why: &str| {
            let error = kept.read(source(child)).unwrap_err().to_string();
            assert!(error.contains(&format!("child {child}")) && error.contains(why), "{error}");
        };
        refused(2, "safetensors");
        fs::copy(kept.file(source(1).key), kept.file(source(2).key)).unwrap();
        refused(2, "not of this child");
        let mut bytes = fs::read(kept.file(source(1).key)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(kept.file(source(1).key), &bytes).unwrap();
        refused(1, "damaged");
        kept.close();
        assert!(!folder.path().join("weights").exists());
        kept.save(source(1).key, &weights).unwrap();
        assert!(!folder.path().join("weights").exists(), "nothing is kept any more");
    }
}
