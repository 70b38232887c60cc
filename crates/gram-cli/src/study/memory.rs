//! How much memory trainings may take.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use gram_data::Dataset;

use crate::failure::{Failure, Kind, Result};

/// A limit on the memory of the process, as far as it is accounted: the program, the images, and trainings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    /// Most bytes of all together; none: unlimited.
    max_bytes: Option<u64>,
    /// Bytes of what is there beside trainings.
    held: u64,
}

impl MemoryLimit {
    /// The limit that was asked for, or 80 % of what is free now; unlimited where that is not known. Ask before images are loaded.
    pub(crate) fn new(asked: Option<u64>) -> Self {
        let max_bytes = asked.or_else(|| Some(free(Path::new("/"))? / 10 * 8));
        Self { max_bytes, held: PROGRAM }
    }

    /// Bounds nothing.
    pub(crate) fn unlimited() -> Self {
        Self { max_bytes: None, held: PROGRAM }
    }

    /// Counts a dataset's images.
    pub(crate) fn hold(&mut self, dataset: &Dataset) {
        let sets = [Some(&dataset.train), dataset.validation.as_ref(), dataset.test.as_ref()];
        let shape = dataset.train.shape();
        let per_image = shape.c * shape.h * shape.w + PER_IMAGE;
        self.held += sets.into_iter().flatten().map(|set| (set.len() * per_image) as u64).sum::<u64>();
    }

    /// What is left for trainings; none: as much as they take.
    pub(crate) fn left(&self) -> Option<u64> {
        self.max_bytes.map(|max_bytes| max_bytes.saturating_sub(self.held))
    }

    /// Threads, at most `cores`, on which a training fits alone: half as many as long as it does not, for each thread needs a little.
    ///
    /// `what` is trained and takes so many `bytes` on so many threads; `then` says what can be done if it does not fit.
    ///
    /// # Errors
    /// Exit code 3 if it does not fit on one thread, with what it takes and the limit.
    pub(crate) fn threads(
        &self,
        what: &str,
        bytes: impl Fn(NonZeroUsize) -> u64,
        cores: NonZeroUsize,
        then: &str,
    ) -> Result<NonZeroUsize> {
        let Some(left) = self.left() else { return Ok(cores) };
        let mut halves = std::iter::successors(Some(cores), |cores| NonZeroUsize::new(cores.get() / 2));
        halves.find(|&n_threads| bytes(n_threads) <= left).ok_or_else(|| {
            let takes = mebibytes(bytes(NonZeroUsize::MIN));
            Failure::new(Kind::Limits, format!("{what} takes {takes} to train, {}: {then}", self.describe()))
        })
    }

    /// `the memory limit of 64.0 MiB leaves 12.5 MiB`.
    pub(crate) fn describe(&self) -> String {
        let [limit, left] = [self.max_bytes, self.left()].map(|bytes| bytes.map_or("-".into(), mebibytes));
        format!("the memory limit of {limit} leaves {left} beside program and images")
    }
}

/// What to do about a training that does not fit.
pub(crate) const MORE_MEMORY: &str = "raise --max-memory and run the same command again; what was trained is kept";

/// The program itself and what a study keeps in memory. Measured.
const PROGRAM: u64 = 24 << 20;

/// Label and place of an image in the dataset, a split and a proxy subset.
const PER_IMAGE: usize = 3 * (size_of::<u32>() + size_of::<usize>());

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Bytes that this process can still take without swapping: what the machine has free, or less where control groups allow less. None where
/// that is not known. Files are looked for below `root`.
fn free(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1 << 10)?;
    Some(control_groups(root).iter().filter_map(|group| group.free()).fold(machine, u64::min))
}

/// Where a control group keeps its memory limit.
struct ControlGroup {
    folder: PathBuf,
    limit: &'static str,
    usage: &'static str,
    /// The line of `memory.stat` with the bytes of files that are cached and can be dropped.
    cache: &'static str,
}

impl ControlGroup {
    fn free(&self) -> Option<u64> {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).ok();
        // `max`, where there is no limit, is no number.
        let limit = read(self.limit)?.trim().parse::<u64>().ok()?;
        let usage = read(self.usage)?.trim().parse::<u64>().ok()?;
        let cache = read("memory.stat")
            .and_then(|stat| stat.lines().find_map(|line| line.strip_prefix(self.cache)?.trim().parse::<u64>().ok()));
        Some(limit.saturating_sub(usage.saturating_sub(cache.unwrap_or(0))))
    }
}

/// The control groups of this process, of both versions, each with those around it: all their limits hold.
fn control_groups(root: &Path) -> Vec<ControlGroup> {
    let mut groups = Vec::new();
    for line in fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default().lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (base, [limit, usage, cache]) = if controllers.is_empty() {
            ("sys/fs/cgroup", ["memory.max", "memory.current", "inactive_file "])
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "])
        } else {
            continue;
        };
        let path = Path::new(path.trim_start_matches('/'));
        groups.extend(path.ancestors().map(|path| {
            let folder = root.join(base).join(path);
            ControlGroup { folder, limit, usage, cache }
        }));
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with 1000 KiB free and these files.
    fn machine(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        let meminfo = ("proc/meminfo", "MemTotal:  4000 kB\nMemFree:  10 kB\nMemAvailable:   1000 kB\n");
        for (path, text) in [meminfo].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        free(root.path()).map(|bytes| bytes >> 10)
    }

    #[test]
    fn the_machine_or_the_narrowest_control_group_decides() {
        assert_eq!(machine(&[]), Some(1000));
        assert_eq!(machine(&[("proc/meminfo", "MemTotal: 4000 kB\n")]), None, "not known");
        // Version 2: the group around the process's own is narrower; 100 KiB of what is used are cached files.
        let around = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", "400000\n"),
            ("sys/fs/cgroup/a/memory.max", "819200\n"),
            ("sys/fs/cgroup/a/memory.current", "512000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 102400\n"),
        ];
        assert_eq!(machine(&around), Some(400));
        // Version 1, seen from inside a container: the path of the host is not there, the root is the container's.
        let container = [
            ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/x\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "307200\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "204800\n"),
        ];
        assert_eq!(machine(&container), Some(100));
        let unlimited = [
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "204800\n"),
        ];
        assert_eq!(machine(&unlimited), Some(1000));
    }

    #[test]
    fn what_is_left_is_the_limit_without_what_is_held() {
        let limit = MemoryLimit::new(Some(PROGRAM + (3 << 20)));
        assert_eq!(limit.left(), Some(3 << 20));
        assert_eq!(limit.describe(), "the memory limit of 27.0 MiB leaves 3.0 MiB beside program and images");
        assert_eq!(MemoryLimit { max_bytes: Some(5), held: 7 }.left(), Some(0));
        assert_eq!(MemoryLimit { max_bytes: None, held: 7 }.left(), None);
    }
}
