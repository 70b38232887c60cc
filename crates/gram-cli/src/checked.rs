//! JSON files that the same command reads back: a checksum tells a damaged or edited one from what was written.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::{read_text, save_json};

const FIELD: &str = "checksum";

/// Writes `value`, which must be a JSON object, with a checksum of all else.
pub(crate) fn save_checked(path: &Path, value: &impl Serialize) -> Result<()> {
    let Ok(Value::Object(mut object)) = serde_json::to_value(value) else {
        return Err(Failure::new(Kind::Internal, format!("{} would not be a JSON object", path.display())));
    };
    let checksum = checksum(&object);
    object.insert(FIELD.into(), checksum.into());
    save_json(path, &object)
}

/// Reads what [`save_checked`] wrote.
///
/// # Errors
/// Exit code 4 if it is damaged, edited, or of another kind.
pub(crate) fn read_checked<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let mut object: Map<String, Value> =
        serde_json::from_str(&read_text(path)?).or_fail_with(Kind::Data, path.display())?;
    let found = object.remove(FIELD);
    if found != Some(checksum(&object).into()) {
        let path = path.display();
        return Err(Failure::new(
            Kind::Data,
            format!(
                "{path}: damaged or edited, its checksum does not match; remove it, and the same command makes it anew"
            ),
        ));
    }
    serde_json::from_value(Value::Object(object)).or_fail_with(Kind::Data, path.display())
}

fn checksum(object: &Map<String, Value>) -> String {
    // Sorted, so that the order of fields in the file does not matter.
    let sorted: std::collections::BTreeMap<&String, &Value> = object.iter().collect();
    let text = serde_json::to_string(&sorted).unwrap_or_default();
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_noticed() {
        let folder = std::env::temp_dir().join(format!("gram-checked-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("file.json");
        let value = std::collections::BTreeMap::from([("top1".to_owned(), 0.5_f64), ("loss".to_owned(), 1.0 / 3.0)]);
        save_checked(&file, &value).unwrap();
        assert_eq!(read_checked::<std::collections::BTreeMap<String, f64>>(&file).unwrap(), value);
        let edited = std::fs::read_to_string(&file).unwrap().replace("0.5", "0.9");
        std::fs::write(&file, edited).unwrap();
        let failure = read_checked::<std::collections::BTreeMap<String, f64>>(&file).unwrap_err();
        assert_eq!(failure.kind, Kind::Data);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
