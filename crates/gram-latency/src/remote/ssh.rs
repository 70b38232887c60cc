//! Devices that one logs in to: a Raspberry Pi, a board, another computer.

use std::fs;
use std::path::{Path, PathBuf};

use gram_latency_runner::jobs::RESULTS_FILE;

use super::{Transport, TransportError, execute, quoted};

/// A device reached with `ssh` and `scp`, without passwords (keys or an agent).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// Where to log in: `pi@raspberrypi.local`, or a name out of the SSH configuration.
    pub destination: String,
    /// Folder on the device; made if it is not there.
    pub folder: String,
    /// The runner's program for the device, on this machine.
    pub runner: PathBuf,
    /// onnxruntime's library on the device; none: the runner looks for it there.
    pub library: Option<String>,
}

impl Ssh {
    /// The device's folder and its parts.
    fn there(&self, part: &str) -> String {
        format!("{}/{part}", self.folder)
    }

    fn shell(&self, step: &str, command: String, inherit: bool) -> Result<Vec<u8>, TransportError> {
        execute(step, "ssh", &self.ssh_arguments(command), inherit)
    }

    fn ssh_arguments(&self, command: String) -> Vec<String> {
        let options = ["-o", "BatchMode=yes", "-o", "ServerAliveInterval=15"].map(String::from);
        options.into_iter().chain(["--".into(), self.destination.clone(), command]).collect()
    }

    fn copy_arguments(&self, from: &Path, to: &str) -> Vec<String> {
        let options = ["-q", "-r", "-o", "BatchMode=yes", "--"].map(String::from);
        options.into_iter().chain([from.display().to_string(), format!("{}:{to}", self.destination)]).collect()
    }

    fn measure_command(&self) -> String {
        let library = self.library.as_ref().map_or(String::new(), |library| format!(" --library {}", quoted(library)));
        format!("{} {}{library}", quoted(&self.there("gram-latency-runner")), quoted(&self.there("jobs")))
    }
}

impl Transport for Ssh {
    fn describe(&self) -> String {
        self.destination.clone()
    }

    fn send(&self, folder: &Path) -> Result<(), TransportError> {
        let jobs = quoted(&self.there("jobs"));
        self.shell("making a folder there", format!("rm -rf {jobs} && mkdir -p {}", quoted(&self.folder)), false)?;
        execute(
            "sending the runner",
            "scp",
            &self.copy_arguments(&self.runner, &self.there("gram-latency-runner")),
            false,
        )?;
        execute("sending the jobs", "scp", &self.copy_arguments(folder, &self.there("jobs")), false)?;
        Ok(())
    }

    fn measure(&self) -> Result<(), TransportError> {
        self.shell("measuring there", self.measure_command(), true).map(|_| ())
    }

    fn fetch(&self, file: &Path) -> Result<bool, TransportError> {
        let results = quoted(&self.there(&format!("jobs/{RESULTS_FILE}")));
        let command = format!("if [ -f {results} ]; then cat {results}; fi");
        let bytes = self.shell("fetching the results", command, false)?;
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
        let ssh = Ssh {
            destination: "pi@raspberrypi.local".into(),
            folder: "gram latency".into(),
            runner: "target/runner".into(),
            library: Some("/opt/libonnxruntime.so".into()),
        };
        assert_eq!(
            ssh.measure_command(),
            "'gram latency/gram-latency-runner' 'gram latency/jobs' --library /opt/libonnxruntime.so"
        );
        let arguments = ssh.copy_arguments(Path::new("jobs"), "x/jobs");
        assert_eq!(arguments, ["-q", "-r", "-o", "BatchMode=yes", "--", "jobs", "pi@raspberrypi.local:x/jobs"]);
        // A destination that looks like an option is none.
        assert_eq!(ssh.ssh_arguments("true".into())[4..], ["--", "pi@raspberrypi.local", "true"]);
    }
}
