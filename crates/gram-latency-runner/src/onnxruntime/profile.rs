//! onnxruntime's profile: a JSON list of events, one for every node of every pass, in whole microseconds.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::engine::{EngineError, NodeRuns};

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    args: Args,
}

#[derive(Default, Deserialize)]
struct Args {
    #[serde(default)]
    op_name: String,
    #[serde(default)]
    output_type_shape: Vec<BTreeMap<String, Axes>>,
}

/// Axes of a tensor; anything else that may stand in their place says nothing.
#[derive(Deserialize)]
#[serde(untagged)]
enum Axes {
    Known(Vec<i64>),
    Other(IgnoredAny),
}

/// End of the name of a node's event.
const SUFFIX: &str = "_kernel_time";

/// Times of nodes, in the order in which they first ran.
pub(super) fn parse(json: &[u8]) -> Result<Vec<NodeRuns>, EngineError> {
    let unreadable = |error: serde_json::Error| EngineError::NoProfile(format!("unreadable profile: {error}"));
    let events: Vec<Event> = serde_json::from_slice(json).map_err(unreadable)?;
    let mut places = BTreeMap::new();
    let mut nodes: Vec<NodeRuns> = Vec::new();
    for event in events.iter().filter(|event| event.cat == "Node") {
        let Some(name) = event.name.strip_suffix(SUFFIX) else { continue };
        let place = *places.entry(name).or_insert(nodes.len());
        if place == nodes.len() {
            let output = event.args.output_type_shape.first().map_or_else(Vec::new, axes);
            nodes.push(NodeRuns { name: name.into(), op: event.args.op_name.clone(), output, us: Vec::new() });
        }
        // Times are cut to whole microseconds: half of one is what is lost on average.
        nodes[place].us.push(event.dur + 0.5);
    }
    if nodes.is_empty() {
        return Err(EngineError::NoProfile("the profile names no nodes".into()));
    }
    Ok(nodes)
}

fn axes(types: &BTreeMap<String, Axes>) -> Vec<usize> {
    match types.values().next() {
        Some(Axes::Known(axes)) => axes.iter().map(|&axis| usize::try_from(axis).unwrap_or(0)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_nodes() {
        let json = br#"[
            {"cat": "Session", "dur": 961, "ts": 3, "ph": "X", "name": "model_loading_uri", "args": {}},
            {"cat": "Node", "dur": 0, "name": "a_nchwc_fence_before", "args": {"op_name": "Conv"}},
            {"cat": "Node", "dur": 9, "name": "a_nchwc_kernel_time", "args": {"op_name": "Conv", "output_type_shape": [{"float": [1, 16, 8, 8]}]}},
            {"cat": "Node", "dur": 2, "name": "p_kernel_time", "args": {"op_name": "Flatten", "output_type_shape": [{"float": "?"}]}},
            {"cat": "Node", "dur": 4, "name": "a_nchwc_kernel_time", "args": {"op_name": "Conv", "output_type_shape": [{"float": [1, 16, 8, 8]}]}}
        ]"#;
        let conv =
            NodeRuns { name: "a_nchwc".into(), op: "Conv".into(), output: vec![1, 16, 8, 8], us: vec![9.5, 4.5] };
        let flatten = NodeRuns { name: "p".into(), op: "Flatten".into(), output: vec![], us: vec![2.5] };
        assert_eq!(parse(json).unwrap(), [conv, flatten]);
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for json in ["", "{}", "[]", "[1]"] {
            assert!(matches!(parse(json.as_bytes()), Err(EngineError::NoProfile(_))), "{json}");
        }
    }
}
