//! Indents JSON: what fits on one line stays on one line.

/// Objects and arrays up to this length, without indentation, are not broken.
const MAX_INLINE: usize = 140;

/// Nor nested deeper than this, so that lists of nodes have a line for each node.
const MAX_INLINE_DEPTH: usize = 2;

/// `compact`, as `serde_json::to_string` writes it, with line breaks, indentation and a blank behind `:` and `,`.
pub(super) fn pretty(compact: &str) -> String {
    let mut out = String::with_capacity(compact.len() * 2);
    let mut rest = compact;
    let mut depth = 0;
    while let Some(c) = rest.chars().next() {
        let token = token_len(rest);
        let break_line = |out: &mut String, depth: usize| {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        };
        match c {
            '{' | '[' => {
                if let Some(length) = inline_len(rest) {
                    inline(&mut out, &rest[..length]);
                    rest = &rest[length..];
                    continue;
                }
                out.push(c);
                depth += 1;
                break_line(&mut out, depth);
            }
            '}' | ']' => {
                depth -= 1;
                break_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push_str(&rest[..token]),
        }
        rest = &rest[token..];
    }
    out.push('\n');
    out
}

/// Length of the string, or of the run of other characters, or of the one mark, that `rest` begins with.
fn token_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    match bytes[0] {
        b'"' => {
            let mut i = 1;
            while i < bytes.len() && bytes[i] != b'"' {
                i += if bytes[i] == b'\\' { 2 } else { 1 };
            }
            (i + 1).min(bytes.len())
        }
        b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
        _ => rest.find(['{', '}', '[', ']', ',', ':', '"']).unwrap_or(rest.len()),
    }
}

/// Length in `rest` of the object or array that it begins with, if that fits on a line.
fn inline_len(rest: &str) -> Option<usize> {
    let (mut at, mut depth, mut printed) = (0, 0usize, 0);
    while printed <= MAX_INLINE && depth <= MAX_INLINE_DEPTH && at < rest.len() {
        let token = token_len(&rest[at..]);
        match rest.as_bytes()[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b',' | b':' => printed += 1,
            _ => {}
        }
        printed += token;
        at += token;
        if depth == 0 {
            return (printed <= MAX_INLINE).then_some(at);
        }
    }
    None
}

fn inline(out: &mut String, mut rest: &str) {
    while !rest.is_empty() {
        let token = token_len(rest);
        out.push_str(&rest[..token]);
        if matches!(&rest[..token], "," | ":") {
            out.push(' ');
        }
        rest = &rest[token..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_values_stay_on_one_line() {
        assert_eq!(pretty(r#"{"a":[1,2],"b":"x,y:{"}"#), "{\"a\": [1, 2], \"b\": \"x,y:{\"}\n");
        assert_eq!(pretty("[]"), "[]\n");
    }

    #[test]
    fn long_values_are_broken_and_mean_the_same() {
        let words: Vec<String> = (0..40).map(|i| format!("wörd \"{i}\" \\")).collect();
        let compact = serde_json::to_string(&serde_json::json!({ "inner": { "words": words, "none": null } })).unwrap();
        let broken = pretty(&compact);
        assert_eq!(broken.lines().count(), 47);
        let (before, after): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(&compact).unwrap(), serde_json::from_str(&broken).unwrap());
        assert_eq!(before, after);
    }
}
