//! Lines that carry a checksum of themselves and of the line before.

/// A line `{"checksum":"…",<rest>` where the checksum is blake3 of the previous line's checksum and of `<rest>`, byte for byte.
///
/// `body` is a JSON object that is not empty. Returns the line, without line break, and its checksum.
pub(crate) fn seal(previous: &str, body: &str) -> (String, String) {
    let rest = body.strip_prefix('{').unwrap_or(body);
    let checksum = digest(previous, rest);
    (format!("{PREFIX}{checksum}\",{rest}"), checksum)
}

/// Checksum and body (a JSON object again) of a line that [`seal`] wrote; none if a byte of it changed or it follows another line.
pub(crate) fn unseal(previous: &str, line: &str) -> Option<(String, String)> {
    let (checksum, rest) = line.strip_prefix(PREFIX)?.split_once("\",")?;
    (digest(previous, rest) == checksum).then(|| (checksum.to_owned(), format!("{{{rest}")))
}

const PREFIX: &str = "{\"checksum\":\"";

fn digest(previous: &str, rest: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous.as_bytes()).update(b"\n").update(rest.as_bytes());
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_or_place_is_noticed() {
        let body = r#"{"seq":1,"kind":"stop"}"#;
        let (line, checksum) = seal("before", body);
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
        assert_eq!(unseal("before", &line), Some((checksum, body.to_owned())));
        assert_eq!(unseal("other", &line), None);
        for at in 0..line.len() {
            let mut bytes = line.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!(unseal("before", &changed), None, "byte {at}");
        }
    }
}
