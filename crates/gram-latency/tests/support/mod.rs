//! What tests against the real engine share.

#![allow(dead_code, reason = "not every test uses all of it")]
#![allow(clippy::print_stderr, reason = "a skipped test says why")]

use gram_latency_runner::OnnxRuntime;

/// onnxruntime with one thread; none: skip. With `GRAM_REQUIRE_ONNXRUNTIME=1` its absence is a failure.
pub(crate) fn onnxruntime() -> Option<OnnxRuntime> {
    match OnnxRuntime::open(None, 1) {
        Ok(engine) => Some(engine),
        Err(error) => {
            let required = std::env::var("GRAM_REQUIRE_ONNXRUNTIME").is_ok_and(|value| value == "1");
            assert!(!required, "GRAM_REQUIRE_ONNXRUNTIME is set, but {error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}
