//! Comparing configurations field by field.

use serde_json::Value;

/// No more lines are listed.
const MAX_LINES: usize = 8;
/// Longer values are cut to so many characters.
const MAX_CHARS: usize = 60;
/// So many characters of what two long texts share are shown before their first difference.
const CONTEXT_CHARS: usize = 16;

/// One line per field in which two configurations differ: path, what is `there`, what was `asked` for.
pub(crate) fn differences(there: &Value, asked: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", there, asked, &mut lines);
    let more = lines.len().saturating_sub(MAX_LINES);
    if more > 0 {
        lines.truncate(MAX_LINES);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn compare(path: &str, there: &Value, asked: &Value, lines: &mut Vec<String>) {
    match (there, asked) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let (a, b) = (a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null));
                compare(&path, a, b, lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{index}]"), a, b, lines);
            }
        }
        _ if there == asked => {}
        (Value::String(a), Value::String(b)) => {
            let start = start_of_difference(a, b);
            lines.push(format!("{path} is {} there, {} now", excerpt(a, start), excerpt(b, start)));
        }
        _ => lines.push(format!("{path} is {} there, {} now", short(there), short(asked))),
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::Null => "not set".into(),
        Value::String(text) => excerpt(text, 0),
        Value::Array(_) | Value::Object(_) => {
            let text = value.to_string();
            if text.chars().count() > MAX_CHARS {
                format!("{}…", text.chars().take(MAX_CHARS).collect::<String>())
            } else {
                text
            }
        }
        _ => value.to_string(),
    }
}

/// The character from which two different texts are shown: a little before their first difference, or 0 where that is shown anyway.
fn start_of_difference(a: &str, b: &str) -> usize {
    let n_same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let both_are_short = a.chars().count().max(b.chars().count()) <= MAX_CHARS;
    if both_are_short { 0 } else { n_same.saturating_sub(CONTEXT_CHARS) }
}

/// The text from its character `start` on, quoted; `…` stands for what is left out.
fn excerpt(text: &str, start: usize) -> String {
    let part: String = text.chars().skip(start).take(MAX_CHARS).collect();
    let before = if start > 0 { "…" } else { "" };
    let after = if text.chars().count() > start + MAX_CHARS { "…" } else { "" };
    format!("\"{before}{part}{after}\"")
}

/// The value with the fields of every object in the order of their names, whatever order the JSON library was built to keep.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            fields.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_named_by_path() {
        let there = json!({"study": {"seed": 1, "space": {"stages": [{"nodes": 8}]}}, "context": null});
        let asked = json!({"study": {"seed": 2, "space": {"stages": [{"nodes": 9}]}}, "context": {"lr": 0.1}});
        let expected = [
            "context is not set there, {\"lr\":0.1} now",
            "study.seed is 1 there, 2 now",
            "study.space.stages[0].nodes is 8 there, 9 now",
        ];
        let mut found = differences(&there, &asked);
        found.sort();
        assert_eq!(found, expected);
        assert!(differences(&there, &there).is_empty());
    }

    #[test]
    fn long_texts_are_shown_where_they_differ() {
        let identity = |rate: &str| format!("{}µ, learning_rate {rate}, {}", "same ".repeat(30), "tail ".repeat(30));
        let (there, asked) = (json!({"evaluator": identity("0.1")}), json!({"evaluator": identity("0.25")}));
        let lines = differences(&there, &asked);
        let expected = "evaluator is \"…learning_rate 0.1, tail tail tail tail tail tail tail tail t…\" there, \
                        \"…learning_rate 0.25, tail tail tail tail tail tail tail tail …\" now";
        assert_eq!(lines, [expected]);
        // One is the beginning of the other; short ones stand as a whole.
        let (long, longer) = ("x".repeat(100), "x".repeat(101));
        let (sixteen, seventeen) = ("x".repeat(16), "x".repeat(17));
        assert_eq!(
            differences(&json!(long), &json!(longer)),
            [format!(" is \"…{sixteen}\" there, \"…{seventeen}\" now")]
        );
        assert_eq!(differences(&json!("toy a"), &json!("toy b")), [" is \"toy a\" there, \"toy b\" now"]);
    }

    #[test]
    fn long_lists_are_cut() {
        let (there, asked) = (json!((0..20).collect::<Vec<_>>()), json!((1..21).collect::<Vec<_>>()));
        let lines = differences(&there, &asked);
        assert_eq!((lines.len(), lines[8].as_str()), (9, "and 12 more"));
    }

    #[test]
    fn fields_are_sorted_at_every_depth() {
        let value = json!({"b": [1, {"d": null, "c": "x\"y"}], "a": 0.1});
        assert_eq!(sorted(&value).to_string(), r#"{"a":0.1,"b":[1,{"c":"x\"y","d":null}]}"#);
    }
}
