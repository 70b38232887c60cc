//! The machine that figures are of.

use std::process::Command;

/// What a reader must know about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) torch: String,
    /// Load averages of a minute, at start and end, where the system tells.
    pub(crate) loads: [Option<f64>; 2],
}

impl Machine {
    pub(crate) fn look(torch: String) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { cpu: cpu(), cores, torch, loads: [load(), None] }
    }

    pub(crate) fn look_again(&mut self) {
        self.loads[1] = load();
    }
}

/// Refuses to start another contender where memory would run out.
pub(crate) fn check_memory(batch: usize) -> Result<(), String> {
    // Torch takes about 1.7 GiB at batch 64.
    let need = 1024 + 24 * batch as u64;
    match available_mib() {
        Some(free) if free < need => Err(format!("{free} MiB of memory are free, {need} are wanted for one more")),
        _ => Ok(()),
    }
}

fn available_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// The processor's name as the system has it.
fn cpu() -> String {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).env("LC_ALL", "C").output().ok()?;
        String::from_utf8(output.stdout).ok().filter(|text| !text.trim().is_empty())
    };
    let linux = output("lscpu", &[]).and_then(|text| describe(&text));
    let mac = || output("sysctl", &["-n", "machdep.cpu.brand_string"]).map(|text| text.trim().to_owned());
    linux.or_else(mac).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Name, family and model out of what `lscpu` prints.
fn describe(lscpu: &str) -> Option<String> {
    let field = |name: &str| {
        let line = lscpu.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).filter(|value| !value.is_empty())
    };
    let name = field("Model name")?;
    Some(match (field("CPU family"), field("Model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_processor() {
        let text = "Architecture:  x86_64\n  Model name:   AMD EPYC\n    CPU family: 26\n    Model:  2\n";
        assert_eq!(describe(text).unwrap(), "AMD EPYC (family 26, model 2)");
        assert_eq!(describe("Model name: Neoverse-N1\nModel: 1").unwrap(), "Neoverse-N1");
        assert_eq!(describe("Architecture: x86_64"), None);
    }
}
