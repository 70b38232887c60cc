//! Profiling a device: which kernels and networks are measured, and what becomes of the measurements.

use std::collections::BTreeMap;

use gram_export::ExportError;
use gram_ir::{LowerError, Network, NetworkError, PresetError, Shape};
use gram_latency_runner::stats::median;
use gram_latency_runner::{
    Device, FORMAT_VERSION as JOBS_VERSION, Job, JobFile, Outcome, Plan, Record, References, Times,
};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::bench::{bench_network, kernel_times, timing_model};
use crate::device_file::{DeviceFile, KernelTime, NetworkTime};
use crate::eviction::{self, LARGE_MB, LargeReference};
use crate::family::{Family, FamilyError};
use crate::fuse::{Fused, fuse};
use crate::kernel::Kernel;
use crate::layout::probe;
use crate::made_up::{large_reference, random_kernel, reference};
use crate::{FORMAT_VERSION, Layout};

/// What is measured of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileConfig {
    /// Families; the table has their kernels.
    pub families: Vec<Family>,
    /// Whole networks of each family.
    pub networks: u64,
    /// Further networks of each family whose kernels are measured, but not they themselves.
    pub kernel_networks: u64,
    /// Kernels at random, for what predicts kernels that are not in the table.
    pub random_kernels: usize,
    /// Most kernels.
    pub max_kernels: usize,
    /// Rounds of each kernel.
    pub kernel_rounds: u32,
    /// Rounds of each network.
    pub network_rounds: u32,
    /// Seed of the networks; held-out networks have other seeds.
    pub seed: u64,
    /// How it is measured.
    pub plan: Plan,
}

impl ProfileConfig {
    /// The defaults for these families: minutes at most on a desktop.
    pub fn new(families: Vec<Family>) -> Self {
        Self {
            families,
            networks: 96,
            kernel_networks: 96,
            random_kernels: 250,
            max_kernels: 4000,
            kernel_rounds: 2,
            network_rounds: 6,
            seed: 1_000_003,
            plan: Plan::default(),
        }
    }
}

/// Why a profile cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// A family has no networks.
    #[error("family `{family}`: {source}")]
    Family {
        /// Name of the family.
        family: String,
        /// Why.
        source: FamilyError,
    },
    /// A network could not be written as ONNX.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The reference network could not be made.
    #[error("the reference network: {0}")]
    Reference(#[from] NetworkError),
    /// The large reference network is no preset, or takes no such images.
    #[error("the large reference network: {0}")]
    LargeReference(#[from] PresetError),
    /// The large reference network could not be lowered.
    #[error("the large reference network: {0}")]
    Lower(#[from] LowerError),
    /// Too little was measured to make a device file of it.
    #[error("no {what} was measured{}", refused_hint(*n_refused))]
    Nothing {
        /// What is missing.
        what: &'static str,
        /// Models that the engine refused.
        n_refused: usize,
    },
}

fn refused_hint(n_refused: usize) -> String {
    if n_refused == 0 { String::new() } else { format!("; the engine refused {n_refused} models") }
}

/// The jobs of a profile and the networks that they measure.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The jobs.
    pub jobs: JobFile,
    families: Vec<Family>,
    layout: Layout,
    reference: Network,
    large_reference: Network,
    /// By job id.
    targets: BTreeMap<String, Target>,
}

#[derive(Clone, Debug)]
enum Target {
    Kernel { kernel: Kernel, network: Network, place: usize, in_networks: u32 },
    Network { name: String, network: Network },
}

impl Prepared {
    /// Everything that `config` asks for, on an engine of this layout.
    ///
    /// # Errors
    /// [`ProfileError`] for a family that has no networks.
    pub fn new(config: &ProfileConfig, layout: Layout) -> Result<Self, ProfileError> {
        let mut kernels: BTreeMap<Kernel, u32> = BTreeMap::new();
        let mut networks = Vec::new();
        for family in &config.families {
            for index in 0..config.networks + config.kernel_networks {
                let network = family.network(config.seed, index);
                let network = network.map_err(|source| ProfileError::Family { family: family.name.clone(), source })?;
                for kernel in counted(&fuse(&network, layout)).into_keys() {
                    *kernels.entry(kernel).or_insert(0) += 1;
                }
                if index < config.networks {
                    networks.push((format!("{}/{}/{index}", family.name, config.seed), network));
                }
            }
        }
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let mut kernels: Vec<(Kernel, u32)> = kernels.into_iter().collect();
        // What is too many is left out at random, not by operator.
        kernels.shuffle(&mut rng);
        kernels.truncate(config.max_kernels);
        let random: Vec<Kernel> = (0..config.random_kernels).map(|_| random_kernel(layout, &mut rng)).collect();
        let mut kernels: BTreeMap<Kernel, u32> = kernels.into_iter().collect();
        random.into_iter().for_each(|kernel| {
            kernels.entry(kernel).or_insert(0);
        });
        let rounds = [config.kernel_rounds, config.network_rounds];
        let prepared = Self::of(kernels, networks, rounds, &config.plan, layout)?;
        Ok(Self { families: config.families.clone(), ..prepared })
    }

    /// Whole networks only.
    ///
    /// # Errors
    /// [`ProfileError::Reference`].
    pub fn of_networks(
        networks: Vec<(String, Network)>,
        rounds: u32,
        plan: &Plan,
        layout: Layout,
    ) -> Result<Self, ProfileError> {
        Self::of(BTreeMap::new(), networks, [1, rounds], plan, layout)
    }

    /// The one network that shows what blocks a device's engine works in.
    pub(crate) fn layout_probe(threads: usize) -> Result<Self, ProfileError> {
        let plan = Plan { threads, ..Plan::default() };
        let mut prepared = Self::of_networks(vec![("layout".into(), probe()?)], 1, &plan, Layout::PLAIN)?;
        prepared.jobs.jobs.iter_mut().for_each(|job| job.profiled = true);
        Ok(prepared)
    }

    fn of(
        kernels: BTreeMap<Kernel, u32>,
        networks: Vec<(String, Network)>,
        [kernel_rounds, network_rounds]: [u32; 2],
        plan: &Plan,
        layout: Layout,
    ) -> Result<Self, ProfileError> {
        let mut targets = BTreeMap::new();
        let mut jobs: Vec<Job> = Vec::new();
        let mut add = |id: String, target: Target, profiled: bool, rounds: u32| {
            let (Target::Kernel { network, .. } | Target::Network { network, .. }) = &target;
            let Shape { c, h, w } = network.input_shape();
            let model = format!("nets/{:05}.onnx", jobs.len());
            jobs.push(Job { id: id.clone(), model, input: [c, h, w], profiled, rounds });
            targets.insert(id, target);
        };
        for (kernel, in_networks) in kernels {
            if let Some((network, place)) = bench_network(&kernel, layout) {
                let target = Target::Kernel { kernel, network, place, in_networks };
                add(format!("kernel {kernel}"), target, true, kernel_rounds);
            }
        }
        for (name, network) in networks {
            add(format!("network {name}"), Target::Network { name, network }, false, network_rounds);
        }
        let (reference, large_reference) = (reference()?, large_reference()?);
        let job = |id: &str, network: &Network| {
            let Shape { c, h, w } = network.input_shape();
            let model = format!("nets/{id}.onnx");
            Job { id: id.into(), model, input: [c, h, w], profiled: false, rounds: 1 }
        };
        let is_large = |target: &Target| match target {
            Target::Network { network, .. } => eviction::megabytes_of(&counted(&fuse(network, layout))) >= LARGE_MB,
            Target::Kernel { .. } => false,
        };
        let any_large = targets.values().any(is_large);
        let mut file = JobFile {
            format_version: JOBS_VERSION,
            digest: String::new(),
            plan: plan.clone(),
            reference: job("reference", &reference),
            large_reference: any_large.then(|| job(LARGE_REFERENCE, &large_reference)),
            jobs,
        };
        file.digest = digest(&file, &targets);
        Ok(Self { jobs: file, families: Vec::new(), layout, reference, large_reference, targets })
    }

    /// The ONNX bytes of a job.
    ///
    /// # Errors
    /// [`ProfileError::Export`].
    pub fn model(&self, job: &Job) -> Result<Vec<u8>, ProfileError> {
        let network = match self.targets.get(&job.id) {
            Some(Target::Kernel { network, .. } | Target::Network { network, .. }) => network,
            None if job.id == LARGE_REFERENCE => &self.large_reference,
            None => &self.reference,
        };
        Ok(timing_model(network)?)
    }

    /// The device file of what was measured.
    ///
    /// # Errors
    /// [`ProfileError::Nothing`] if no kernel or no network was measured.
    pub fn device_file(&self, device: &Device, records: &[Record]) -> Result<DeviceFile, ProfileError> {
        let measured = self.measured(records);
        let file = DeviceFile {
            format_version: FORMAT_VERSION,
            device: device.clone(),
            layout: self.layout,
            plan: self.jobs.plan.clone(),
            families: self.families.clone(),
            borrowed_from: None,
            reference_us: measured.references.us,
            large_reference_us: measured.references.large_us,
            kernels: self.kernel_table(&measured),
            networks: self.network_times(&measured, measured.references),
            refused: measured.refused,
            fit: None,
        };
        let n_refused = file.refused.len();
        if file.kernels.is_empty() {
            return Err(ProfileError::Nothing { what: "kernel", n_refused });
        }
        if file.networks.is_empty() {
            return Err(ProfileError::Nothing { what: "network", n_refused });
        }
        Ok(file)
    }

    /// Times of the whole networks alone, scaled to what the references took `then`; those that the engine refused are left out.
    pub fn networks(&self, records: &[Record], then: References) -> Vec<NetworkTime> {
        self.network_times(&self.measured(records), then)
    }

    /// Times of the reference networks, and times of the whole networks as they were measured.
    pub fn own_networks(&self, records: &[Record]) -> (References, Vec<NetworkTime>) {
        let measured = self.measured(records);
        (measured.references, self.network_times(&measured, measured.references))
    }

    fn measured<'a>(&self, records: &'a [Record]) -> Measured<'a> {
        let mut times: BTreeMap<&str, Vec<&Times>> = BTreeMap::new();
        let mut refused = BTreeMap::new();
        for record in records.iter().filter(|record| self.targets.contains_key(&record.id)) {
            match &record.outcome {
                Outcome::Measured(of) => times.entry(&record.id).or_default().push(of),
                Outcome::Refused(reason) => {
                    refused.insert(record.id.clone(), reason.clone());
                }
            }
        }
        let over_all = |us: fn(&Times) -> Option<f64>| {
            let all: Vec<f64> = times.values().flatten().filter_map(|of| us(of)).collect();
            (!all.is_empty()).then(|| median(&all))
        };
        let us = over_all(|times| Some(times.reference_us)).unwrap_or(f64::NAN);
        let references = References { us, large_us: over_all(|times| times.large_reference_us) };
        Measured { times, refused, references }
    }

    fn kernel_table(&self, measured: &Measured<'_>) -> BTreeMap<Kernel, KernelTime> {
        let mut table = BTreeMap::new();
        for (id, target) in &self.targets {
            let Target::Kernel { kernel, network, place, in_networks } = target else { continue };
            let fused = fuse(network, self.layout);
            let rounds: Vec<f64> = measured
                .of(id)
                .filter_map(|times| {
                    let us = kernel_times(network, &fused, &times.nodes)[*place]?;
                    Some(us * measured.references.us / times.reference_us)
                })
                .collect();
            if !rounds.is_empty() {
                table.insert(*kernel, KernelTime { us: median(&rounds), networks: *in_networks });
            }
        }
        table
    }

    /// Scaled to what the references took `then`.
    fn network_times(&self, measured: &Measured<'_>, then: References) -> Vec<NetworkTime> {
        let mut networks = Vec::new();
        let megabytes = eviction::megabytes_of(&counted(&fuse(&self.large_reference, self.layout)));
        let large = LargeReference { megabytes };
        for job in &self.jobs.jobs {
            let Some(Target::Network { name, network }) = self.targets.get(&job.id) else { continue };
            let kernels = counted(&fuse(network, self.layout));
            let megabytes = eviction::megabytes_of(&kernels);
            let scaled = |us: fn(&Times) -> f64| {
                let round =
                    |times: &Times| us(times) / large.slowdown(times.references(), then, megabytes, times.p50_us);
                median(&measured.of(&job.id).map(round).collect::<Vec<f64>>())
            };
            if measured.of(&job.id).next().is_some() {
                networks.push(NetworkTime {
                    name: name.clone(),
                    macs: network.cost().macs.0,
                    kernels,
                    min_us: scaled(|times| times.min_us),
                    p50_us: scaled(|times| times.p50_us),
                });
            }
        }
        networks
    }
}

struct Measured<'a> {
    times: BTreeMap<&'a str, Vec<&'a Times>>,
    refused: BTreeMap<String, String>,
    /// Medians.
    references: References,
}

impl<'a> Measured<'a> {
    fn of(&self, id: &str) -> impl Iterator<Item = &'a Times> {
        self.times.get(id).into_iter().flatten().copied()
    }
}

/// The kernels of a network and how often each occurs.
pub(crate) fn counted(fused: &Fused) -> BTreeMap<Kernel, u32> {
    let mut counts = BTreeMap::new();
    fused.kernels.iter().for_each(|placed| *counts.entry(placed.kernel).or_insert(0) += 1);
    counts
}

/// Id of the job of the large reference.
const LARGE_REFERENCE: &str = "large-reference";

/// Names the list of jobs by what it measures and how.
fn digest(file: &JobFile, targets: &BTreeMap<String, Target>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{file:?}").as_bytes());
    for target in targets.values() {
        let (Target::Kernel { network, .. } | Target::Network { network, .. }) = target;
        hasher.update(network.to_string().as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
