//! What a latency was measured on.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

/// Everything that a latency depends on besides the network; stands beside every number that is stored.
///
/// Two devices are the same if all fields agree; numbers of different devices are never mixed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Name of the machine.
    pub host: String,
    /// Processor, as the system names it.
    pub cpu: String,
    /// Inference engine, e.g. `onnxruntime`.
    pub engine: String,
    /// Version of the engine.
    pub engine_version: String,
    /// Threads that one forward pass may use.
    pub threads: usize,
    /// Type of weights and activations, e.g. `f32`.
    pub dtype: String,
    /// How the processor's frequency is chosen, e.g. `performance`; `unknown` where the system does not say.
    pub frequency_policy: String,
}

impl Device {
    /// This machine with the given engine.
    pub fn of_this_machine(engine: &str, engine_version: &str, threads: usize) -> Self {
        Self {
            host: first_line("/proc/sys/kernel/hostname").unwrap_or_else(|| "unknown".into()),
            cpu: cpu_model().unwrap_or_else(|| std::env::consts::ARCH.into()),
            engine: engine.into(),
            engine_version: engine_version.into(),
            threads,
            dtype: "f32".into(),
            frequency_policy: first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
                .unwrap_or_else(|| "unknown".into()),
        }
    }

    /// The fields in which `other` differs, each as `field: this, not that`; empty if it is the same device.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let fields = [
            ("host", &self.host, &other.host),
            ("cpu", &self.cpu, &other.cpu),
            ("engine", &self.engine, &other.engine),
            ("engine_version", &self.engine_version, &other.engine_version),
            ("dtype", &self.dtype, &other.dtype),
            ("frequency_policy", &self.frequency_policy, &other.frequency_policy),
        ];
        let differing = fields.into_iter().filter(|(_, a, b)| a != b);
        let mut differences: Vec<String> = differing.map(|(name, a, b)| format!("{name}: {a}, not {b}")).collect();
        if self.threads != other.threads {
            differences.push(format!("threads: {}, not {}", self.threads, other.threads));
        }
        differences
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, cpu, engine, engine_version, threads, dtype, frequency_policy } = self;
        let plural = if *threads == 1 { "" } else { "s" };
        write!(
            f,
            "{host}, {cpu}, {engine} {engine_version}, {threads} thread{plural}, {dtype}, frequency {frequency_policy}"
        )
    }
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().next()?.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!line.is_empty()).then(|| line.into())
}

fn cpu_model() -> Option<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpu_model_of(&cpuinfo).or_else(|| first_line("/sys/firmware/devicetree/base/model"))
}

/// Model of the first processor; x86 gives a name and numbers, ARM numbers, and at most a name that all processors of a generation share.
fn cpu_model_of(cpuinfo: &str) -> Option<String> {
    let field = |wanted: &str| {
        let found = cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == wanted).then(|| value.trim().to_owned())
        });
        found.filter(|value| !value.is_empty())
    };
    match (field("model name"), field("cpu family"), field("model"), field("stepping")) {
        (Some(name), Some(family), Some(model), Some(stepping)) => {
            Some(format!("{name} (family {family} model {model} stepping {stepping})"))
        }
        (name, ..) => {
            let part = field("CPU part")
                .map(|part| format!("{} part {part}", field("CPU implementer").unwrap_or_else(|| "unknown".into())));
            match (name, part) {
                (Some(name), Some(part)) => Some(format!("{name} ({part})")),
                (name, part) => name.or(part),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_of_x86_and_arm() {
        let x86 = "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\nstepping\t: 1\n";
        assert_eq!(cpu_model_of(x86).as_deref(), Some("AMD EPYC (family 26 model 2 stepping 1)"));
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n";
        assert_eq!(cpu_model_of(arm).as_deref(), Some("0x41 part 0xd08"));
        let shared_name = format!("model name\t: ARMv8 Processor rev 3 (v8l)\n{arm}");
        assert_eq!(cpu_model_of(&shared_name).as_deref(), Some("ARMv8 Processor rev 3 (v8l) (0x41 part 0xd08)"));
        assert_eq!(cpu_model_of("model name\t: other\n").as_deref(), Some("other"));
        assert_eq!(cpu_model_of(""), None);
    }

    #[test]
    fn differences_name_the_field() {
        let one = Device::of_this_machine("onnxruntime", "1.32.0", 1);
        let other = Device { threads: 2, engine_version: "1.31.0".into(), ..one.clone() };
        assert_eq!(one.differences(&one), Vec::<String>::new());
        assert_eq!(one.differences(&other), ["engine_version: 1.32.0, not 1.31.0", "threads: 1, not 2"]);
        assert!(!one.cpu.is_empty() && one.to_string().contains("1 thread,"));
    }
}
