//! NAS-Bench-Macro (Su et al., [arXiv:2103.11922](https://arxiv.org/abs/2103.11922)): eight layers, each an identity or one of two blocks.
//!
//! The file is a JSON object: eight digits (0 identity, 1 block k3 e3, 2 block k5 e6) name an entry whose `mean_acc`, the mean of three
//! trainings in percent, is both what the search sees and what it is judged by: the table has no validation accuracy of its own.
//!
//! # Equal functions
//! Layers 0-1, 2-4 and 5-7 are stages; the first layer of each changes the shape, so that its "identity" is a projection and commutes with
//! nothing. Inside a stage a true identity does: in layers 3, 4 and in layers 6, 7 `identity, block` is `block, identity`. The table's
//! own params and multiply-adds agree for exactly these pairs. Its 6,561 rows are 3,969 functions.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::read::{MAX_ROWS, Text, shortened};
use super::table::{Layout, Row};
use super::{Identity, Table, TabularError};
use crate::domain::{Decision, FunctionGraph, Histogram, Point};

const NAME: &str = "nasbench-macro";
const N_LAYERS: usize = 8;
const N_CHOICES: u8 = 3;
const STAGE_OF: [u32; N_LAYERS] = [0, 0, 1, 1, 1, 2, 2, 2];
const CHANGES_SHAPE: [bool; N_LAYERS] = [true, false, true, false, false, true, false, false];
/// Layers between which an identity may move.
const COMMUTING: [(usize, usize); 2] = [(3, 4), (6, 7)];

/// Reads the table.
///
/// # Errors
/// [`TabularError`]: JSON errors with their line, others with the number of the entry. An architecture that occurs twice is refused.
pub fn read(path: &Path, identity: Identity) -> Result<Table, TabularError> {
    let text = Text::read(path)?;
    let entries: Entries = serde_json::from_str(&text.content).map_err(|e| text.at(e.line(), e.to_string()))?;
    if entries.0.is_empty() {
        return Err(text.whole("no entries"));
    }
    let mut rows = BTreeMap::new();
    for (index, (name, entry)) in entries.0.iter().enumerate() {
        let refused = |reason: String| text.at(index + 1, format!("entry {:?}: {reason}", shortened(name)));
        let point = parse(name).ok_or_else(|| refused(format!("not {N_LAYERS} digits of 0, 1, 2")))?;
        let score = entry.mean_acc;
        if !score.is_finite() {
            return Err(refused(format!("mean_acc {score} is not finite")));
        }
        let row = Row { function: function(&point), point: point.clone(), validation: score, test: score };
        if rows.insert(point, row).is_some() {
            return Err(refused("occurs twice".into()));
        }
    }
    let decisions = (0..N_LAYERS).map(|layer| Decision::new(format!("layer{layer}"), N_CHOICES)).collect();
    let layout = Layout { name: NAME, decisions, removals: vec![Some(0); N_LAYERS], n_duplicates: 0 };
    Ok(Table::new(layout, rows.into_values().collect(), identity, histogram))
}

fn parse(name: &str) -> Option<Point> {
    let digits: Vec<u8> = name.bytes().map(|byte| byte.wrapping_sub(b'0')).collect();
    (digits.len() == N_LAYERS && digits.iter().all(|&digit| digit < N_CHOICES)).then(|| digits.into())
}

/// The layers with identities moved to the back of their commuting pair.
fn function(point: &Point) -> Vec<u32> {
    let mut layers = point.clone();
    for (first, second) in COMMUTING {
        if layers.values()[first] == 0 {
            layers.swap(first, second);
        }
    }
    layers.values().iter().map(|&choice| u32::from(choice)).collect()
}

/// The chain of operators, identities that compute nothing left out.
fn histogram(row: &Row) -> Histogram {
    let mut labels = vec![0];
    for (layer, &choice) in row.point.values().iter().enumerate() {
        if choice > 0 || CHANGES_SHAPE[layer] {
            let place = 2 * STAGE_OF[layer] + u32::from(CHANGES_SHAPE[layer]);
            labels.push(2 + u32::from(N_CHOICES) * place + u32::from(choice));
        }
    }
    labels.push(1);
    let edges: Vec<(usize, usize)> = (1..labels.len()).map(|to| (to - 1, to)).collect();
    FunctionGraph::new(labels, &edges).map(|graph| graph.histogram()).unwrap_or_default()
}

/// The file's entries in its order, repeated names included.
struct Entries(Vec<(String, Entry)>);

#[derive(Deserialize)]
struct Entry {
    mean_acc: f64,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of architectures")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if entries.len() == MAX_ROWS {
                        return Err(serde::de::Error::custom(format!("more than {MAX_ROWS} entries")));
                    }
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(content: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.json");
        std::fs::write(&path, content).unwrap();
        let message = read(&path, Identity::Function).unwrap_err().to_string();
        message.rsplit_once("m.json").unwrap().1.to_owned()
    }

    #[test]
    fn identities_move_within_a_stage_only() {
        let same = |a: &str, b: &str| function(&parse(a).unwrap()) == function(&parse(b).unwrap());
        assert!(same("00002000", "00020000") && same("11110101", "11110110"));
        assert!(!same("00000200", "00000020") && !same("01000000", "10000000") && !same("00200000", "00020000"));
        assert!(!same("00012000", "00021000"));
        let row = |name: &str| Row { point: parse(name).unwrap(), function: vec![], validation: 0.0, test: 0.0 };
        assert_eq!(histogram(&row("00002000")), histogram(&row("00020000")));
    }

    #[test]
    fn bad_files_are_refused() {
        assert_eq!(refusal("{}"), ": no entries");
        assert_eq!(refusal(r#"{"0000": {"mean_acc": 1}}"#), r#":1: entry "0000": not 8 digits of 0, 1, 2"#);
        assert_eq!(refusal(r#"{"00000003": {"mean_acc": 1}}"#), r#":1: entry "00000003": not 8 digits of 0, 1, 2"#);
        let twice = r#"{"00000000": {"mean_acc": 1}, "00000000": {"mean_acc": 2}}"#;
        assert_eq!(refusal(twice), r#":2: entry "00000000": occurs twice"#);
        assert!(refusal("{\n\"00000000\": {\"std\": 1}}").starts_with(":2: missing field `mean_acc`"));
        assert!(refusal("[").starts_with(":1: "));
    }
}
