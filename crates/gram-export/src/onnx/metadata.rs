//! What an ONNX file says about itself.

use crate::ExportError;

/// Name and key–value pairs of a model file, all that a user needs to feed it images and name its classes.
///
/// # Example
/// ```
/// use gram_export::OnnxMetadata;
/// let mut meta = OnnxMetadata::new("swiftnet");
/// meta.set_classes(&["cat", "dog"]);
/// meta.set_normalisation(&[0.5, 0.5, 0.5], &[0.25, 0.25, 0.25]);
/// assert_eq!(meta.get("classes"), Some(r#"["cat","dog"]"#));
/// assert_eq!(meta.get("input_layout"), Some("NCHW"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnnxMetadata {
    /// Name of the graph.
    pub name: String,
    /// `metadata_props`: keys, each at most once, and values.
    pub metadata_props: Vec<(String, String)>,
}

impl OnnxMetadata {
    /// Metadata of a model `name` whose images are laid out as `[batch, channels, height, width]` (`input_layout` = `NCHW`).
    pub fn new(name: impl Into<String>) -> Self {
        let mut meta = Self { name: name.into(), metadata_props: Vec::new() };
        meta.set("input_layout", "NCHW");
        meta
    }

    /// Adds a pair, or replaces the value of its key.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        match self.metadata_props.iter_mut().find(|(present, _)| *present == key) {
            Some(pair) => pair.1 = value,
            None => self.metadata_props.push((key, value)),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.metadata_props.iter().find(|(present, _)| present == key).map(|(_, value)| value.as_str())
    }

    /// Names of the classes in the order of the outputs: `classes`, a JSON list of strings.
    pub fn set_classes(&mut self, classes: &[impl AsRef<str>]) {
        let classes: Vec<&str> = classes.iter().map(AsRef::as_ref).collect();
        self.set("classes", serde_json::Value::from(classes).to_string());
    }

    /// How inputs are made of pixels in 0..=1, per channel `(pixel − mean) / std`: `mean` and `std`, JSON lists of numbers.
    pub fn set_normalisation(&mut self, mean: &[f64], std: &[f64]) {
        self.set("mean", serde_json::Value::from(mean).to_string());
        self.set("std", serde_json::Value::from(std).to_string());
    }

    /// Refuses keys that stand twice, which ONNX forbids.
    pub(crate) fn check(&self) -> Result<(), ExportError> {
        let mut keys: Vec<&str> = self.metadata_props.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(ExportError::DuplicateMetadata { key: pair[0].into() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_twice_replaces() {
        let mut meta = OnnxMetadata::new("net");
        meta.set("input_layout", "other");
        meta.set_normalisation(&[0.1307], &[0.3081]);
        assert_eq!(meta.metadata_props.len(), 3);
        assert_eq!(meta.get("input_layout"), Some("other"));
        assert_eq!(meta.get("mean"), Some("[0.1307]"));
        assert_eq!(meta.get("none"), None);
        assert!(meta.check().is_ok());
        meta.metadata_props.push(("std".into(), String::new()));
        assert_eq!(meta.check(), Err(ExportError::DuplicateMetadata { key: "std".into() }));
    }

    #[test]
    fn class_names_may_have_any_characters() {
        let mut meta = OnnxMetadata::new("net");
        meta.set_classes(&["a\"b", "ü"]);
        let back: Vec<String> = serde_json::from_str(meta.get("classes").unwrap()).unwrap();
        assert_eq!(back, ["a\"b", "ü"]);
    }
}
