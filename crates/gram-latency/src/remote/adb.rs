//! Android devices, reached with the debug bridge.

use std::fs;
use std::path::{Path, PathBuf};

use gram_latency_runner::jobs::RESULTS_FILE;

use super::{Transport, TransportError, execute, quoted};

/// An Android device reached with `adb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adb {
    /// Serial number; none: the only device that is connected.
    pub serial: Option<String>,
    /// Folder on the device from which programs may run, such as `/data/local/tmp/gram-latency`.
    pub folder: String,
    /// The runner's program for the device (`aarch64-linux-android`), on this machine.
    pub runner: PathBuf,
    /// onnxruntime's library for the device (out of its Android package), on this machine.
    pub library: PathBuf,
    /// Cores to run on, as a hexadecimal mask for `taskset`: the big ones; none: wherever the system likes.
    pub cores: Option<String>,
}

impl Adb {
    fn there(&self, part: &str) -> String {
        format!("{}/{part}", self.folder)
    }

    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let serial = self.serial.iter().flat_map(|serial| ["-s".to_owned(), serial.clone()]);
        serial.chain(arguments.iter().map(|&argument| argument.to_owned())).collect()
    }

    fn adb(&self, step: &str, arguments: &[&str], inherit: bool) -> Result<Vec<u8>, TransportError> {
        execute(step, "adb", &self.arguments(arguments), inherit)
    }

    fn measure_command(&self) -> String {
        let pinned = self.cores.as_ref().map_or(String::new(), |mask| format!("taskset {} ", quoted(mask)));
        let [runner, jobs, library] =
            ["gram-latency-runner", "jobs", "libonnxruntime.so"].map(|part| quoted(&self.there(part)));
        format!("chmod 755 {runner} && {pinned}{runner} {jobs} --library {library}")
    }
}

impl Transport for Adb {
    fn describe(&self) -> String {
        self.serial.as_ref().map_or_else(|| "the Android device".into(), |serial| format!("Android device {serial}"))
    }

    fn send(&self, folder: &Path) -> Result<(), TransportError> {
        let (here, jobs) = (folder.display().to_string(), self.there("jobs"));
        let clear = format!("rm -rf {} && mkdir -p {}", quoted(&jobs), quoted(&self.folder));
        self.adb("making a folder there", &["shell", &clear], false)?;
        let push = |step: &str, from: &Path, to: &str| {
            self.adb(step, &["push", &from.display().to_string(), &self.there(to)], false)
        };
        push("sending the runner", &self.runner, "gram-latency-runner")?;
        push("sending the engine's library", &self.library, "libonnxruntime.so")?;
        self.adb("sending the jobs", &["push", &here, &jobs], false).map(|_| ())
    }

    fn measure(&self) -> Result<(), TransportError> {
        self.adb("measuring there", &["shell", &self.measure_command()], true).map(|_| ())
    }

    fn fetch(&self, file: &Path) -> Result<bool, TransportError> {
        let results = quoted(&self.there(&format!("jobs/{RESULTS_FILE}")));
        let command = format!("if [ -f {results} ]; then cat {results}; fi");
        let bytes = self.adb("fetching the results", &["exec-out", &command], false)?;
        let keep =
            |error: std::io::Error| TransportError { step: "keeping the results".into(), message: error.to_string() };
        if !bytes.is_empty() {
            fs::write(file, &bytes).map_err(keep)?;
        }
        Ok(!bytes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let adb = Adb {
            serial: Some("R58M".into()),
            folder: "/data/local/tmp/gram".into(),
            runner: "runner".into(),
            library: "libonnxruntime.so".into(),
            cores: Some("f0".into()),
        };
        assert_eq!(adb.arguments(&["shell", "true"]), ["-s", "R58M", "shell", "true"]);
        let folder = "/data/local/tmp/gram";
        assert_eq!(
            adb.measure_command(),
            format!(
                "chmod 755 {folder}/gram-latency-runner && taskset f0 {folder}/gram-latency-runner {folder}/jobs --library \
                 {folder}/libonnxruntime.so"
            )
        );
    }
}
