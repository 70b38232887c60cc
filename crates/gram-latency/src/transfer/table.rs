//! Tables of latencies: a row for each architecture, a column for each device.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use gram_ir::preset;
use rayon::prelude::*;

/// Larger tables are refused.
const MAX_TABLE_BYTES: u64 = 64 << 20;

/// Latencies of the same architectures on several devices.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyTable {
    devices: Vec<String>,
    /// Per device the latency of each row.
    latencies: Vec<Vec<f64>>,
    /// Per row what was decided at each place.
    decisions: Vec<Vec<u8>>,
    macs: Vec<f64>,
}

/// Why a table cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// It could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not laid out as expected.
    #[error("{}, line {line}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
}

impl LatencyTable {
    /// NAS-Bench-201: `latencies` has a column `index` and one for each device, `architectures` a column `arch` with the cell's string in
    /// the same order. Both are CSV, plain or gzipped.
    ///
    /// # Errors
    /// [`TableError`] naming file and line.
    pub fn nasbench201(latencies: &Path, architectures: &Path) -> Result<Self, TableError> {
        let table = Csv::read(latencies)?;
        let cells = Csv::read(architectures)?;
        if table.rows.len() != cells.rows.len() {
            let (found, expected) = (cells.rows.len(), table.rows.len());
            return Err(cells.wrong(0, format!("{found} rows, but {} has {expected}", latencies.display())));
        }
        let cells_at = cells.column("arch")?;
        let cell = |row: &Vec<String>| row[cells_at].clone();
        let strings: Vec<String> = cells.rows.iter().map(cell).collect();
        let decisions = strings
            .iter()
            .enumerate()
            .map(|(i, cell)| edges(cell).ok_or_else(|| cells.wrong(i, format!("`{cell}` is no cell"))));
        let decisions = decisions.collect::<Result<Vec<_>, _>>()?;
        let macs = |(i, cell): (usize, &String)| {
            let network = preset(&format!("nasbench201:{cell}"), None, None).map(|design| design.lower());
            match network {
                Ok(Ok(network)) => Ok(network.cost().macs.0 as f64),
                _ => Err(cells.wrong(i, format!("`{cell}` is no cell of NAS-Bench-201"))),
            }
        };
        let macs = strings.par_iter().enumerate().map(macs).collect::<Result<Vec<f64>, _>>()?;
        Self::new(&table, &["index"], decisions, macs)
    }

    /// FBNet: columns `index`, `ops` (22 blank-separated blocks such as `k3_e6`, `k3_e1_g2`, `skip`), and one for each device.
    ///
    /// # Errors
    /// [`TableError`] naming file and line.
    pub fn fbnet(path: &Path) -> Result<Self, TableError> {
        let table = Csv::read(path)?;
        let ops_at = table.column("ops")?;
        let blocks = |(i, row): (usize, &Vec<String>)| {
            let ops = &row[ops_at];
            fbnet_blocks(ops).ok_or_else(|| table.wrong(i, format!("`{ops}` is no network of 22 blocks")))
        };
        let blocks = table.rows.iter().enumerate().map(blocks).collect::<Result<Vec<_>, _>>()?;
        let macs = blocks.iter().map(|blocks| fbnet_macs(blocks)).collect();
        let code = |block: &Block| match block {
            Block::Skip => 0,
            Block::Residual { kernel, expansion, groups } => (kernel * 40 + expansion * 4 + groups) as u8,
        };
        let decisions = blocks.iter().map(|blocks| blocks.iter().map(code).collect()).collect();
        Self::new(&table, &["index", "ops"], decisions, macs)
    }

    fn new(table: &Csv, others: &[&str], decisions: Vec<Vec<u8>>, macs: Vec<f64>) -> Result<Self, TableError> {
        let columns: Vec<usize> =
            (0..table.header.len()).filter(|&column| !others.contains(&table.header[column].as_str())).collect();
        if columns.len() < 2 || table.rows.is_empty() {
            return Err(table.wrong(0, "expected two devices or more, and a row or more".into()));
        }
        let latency = |column: usize| {
            let number = |(i, row): (usize, &Vec<String>)| {
                let value: Option<f64> =
                    row[column].parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0);
                value.ok_or_else(|| table.wrong(i, format!("`{}` is no latency", row[column])))
            };
            table.rows.iter().enumerate().map(number).collect::<Result<Vec<f64>, _>>()
        };
        let latencies = columns.iter().map(|&column| latency(column)).collect::<Result<Vec<_>, _>>()?;
        let devices = columns.iter().map(|&column| table.header[column].clone()).collect();
        Ok(Self { devices, latencies, decisions, macs })
    }

    /// Names of the devices.
    pub fn devices(&self) -> &[String] {
        &self.devices
    }

    /// Number of architectures.
    pub fn n_rows(&self) -> usize {
        self.macs.len()
    }

    /// Latencies of a device, row by row.
    pub fn latencies(&self, device: usize) -> &[f64] {
        &self.latencies[device]
    }

    /// Multiply–accumulates, row by row.
    pub fn macs(&self) -> &[f64] {
        &self.macs
    }

    /// The device without its batch size.
    pub(crate) fn hardware(&self, device: usize) -> &str {
        let name = &self.devices[device];
        let batch_sizes = ["_1", "_32", "_64", "_256"];
        let of_gpu = |name: &str| name.contains("80ti") || name.contains("titan");
        let stripped = batch_sizes.iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|name| of_gpu(name));
        stripped.unwrap_or(name)
    }

    /// Share of decisions that two rows agree in.
    pub(crate) fn agreement(&self, a: usize, b: usize) -> f64 {
        let (a, b) = (&self.decisions[a], &self.decisions[b]);
        a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len().max(1) as f64
    }
}

/// Operators of the six edges, as numbers.
fn edges(cell: &str) -> Option<Vec<u8>> {
    const OPS: [&str; 5] = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"];
    let words = cell.split(['|', '+']).filter(|word| !word.is_empty());
    let op = |word: &str| OPS.iter().position(|op| word.split('~').next() == Some(op)).map(|op| op as u8);
    words.map(op).collect::<Option<Vec<u8>>>().filter(|edges| edges.len() == 6)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Skip,
    Residual { kernel: usize, expansion: usize, groups: usize },
}

fn fbnet_blocks(ops: &str) -> Option<Vec<Block>> {
    let block = |word: &str| {
        if word == "skip" {
            return Some(Block::Skip);
        }
        let mut parts = word.split('_');
        let kernel = parts.next()?.strip_prefix('k')?.parse().ok().filter(|kernel| [3, 5].contains(kernel))?;
        let expansion =
            parts.next()?.strip_prefix('e')?.parse().ok().filter(|expansion| (1..=9).contains(expansion))?;
        let groups = parts.next().map_or(Some(1), |part| part.strip_prefix('g')?.parse().ok())?;
        ([1, 2].contains(&groups) && parts.next().is_none()).then_some(Block::Residual { kernel, expansion, groups })
    };
    ops.split_whitespace().map(block).collect::<Option<Vec<Block>>>().filter(|blocks| blocks.len() == 22)
}

/// Multiply–accumulates of the 22 searched blocks at 224x224; stem and head are the same for all.
///
/// # Source
/// FBNet, [arXiv:1812.03443](https://arxiv.org/abs/1812.03443), tables 1 and 2.
fn fbnet_macs(blocks: &[Block]) -> f64 {
    const STAGES: [(usize, usize, usize); 7] =
        [(16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1)];
    let layers = STAGES
        .iter()
        .flat_map(|&(channels, n, stride)| (0..n).map(move |i| (channels, if i == 0 { stride } else { 1 })));
    let (mut c_in, mut side, mut macs) = (16, 112, 0);
    for (block, (c_out, stride)) in blocks.iter().zip(layers) {
        let after = side / stride;
        macs += match *block {
            Block::Skip if stride == 1 && c_in == c_out => 0,
            Block::Skip => after * after * c_in * c_out,
            Block::Residual { kernel, expansion, groups } => {
                let hidden = c_in * expansion;
                side * side * c_in * hidden / groups + after * after * hidden * (kernel * kernel + c_out / groups)
            }
        };
        (c_in, side) = (c_out, after);
    }
    macs as f64
}

struct Csv {
    path: PathBuf,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Csv {
    fn read(path: &Path) -> Result<Self, TableError> {
        let text = read_text(path).map_err(|source| TableError::Read { path: path.into(), source })?;
        let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
        let csv = Self { path: path.into(), header: lines.next().unwrap_or_default(), rows: lines.collect() };
        match csv.rows.iter().position(|row| row.len() != csv.header.len()) {
            Some(i) => Err(csv.wrong(i, format!("{} columns, not {}", csv.rows[i].len(), csv.header.len()))),
            None => Ok(csv),
        }
    }

    fn column(&self, name: &str) -> Result<usize, TableError> {
        let found = self.header.iter().position(|column| column == name);
        found.ok_or_else(|| TableError::Format {
            path: self.path.clone(),
            line: 1,
            message: format!("no column `{name}`"),
        })
    }

    /// Something wrong with a row, counted from 0 behind the header.
    fn wrong(&self, row: usize, message: String) -> TableError {
        TableError::Format { path: self.path.clone(), line: row + 2, message: message.chars().take(200).collect() }
    }
}

/// Text of a file, gunzipped if its first bytes say so.
fn read_text(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut start = [0; 2];
    let n = file.read(&mut start)?;
    let whole = io::Cursor::new(start[..n].to_vec()).chain(file);
    let mut text = String::new();
    let read = if start == [0x1f, 0x8b] {
        GzDecoder::new(whole).take(MAX_TABLE_BYTES + 1).read_to_string(&mut text)?
    } else {
        whole.take(MAX_TABLE_BYTES + 1).read_to_string(&mut text)?
    };
    if read as u64 > MAX_TABLE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_TABLE_BYTES} bytes of text")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_of_fbnet_by_hand() {
        let skip = fbnet_blocks(&"skip ".repeat(22)).unwrap();
        // Channels change six times: 16·24·56², 24·32·28², 32·64·14², 64·112·14², 112·184·7², 184·352·7².
        let expected =
            16 * 24 * 3136 + 24 * 32 * 784 + 32 * 64 * 196 + 64 * 112 * 196 + 112 * 184 * 49 + 184 * 352 * 49;
        assert_eq!(fbnet_macs(&skip), expected as f64);
        let first = fbnet_blocks(&format!("k3_e6_g2 {}", "skip ".repeat(21))).unwrap();
        let block = 112 * 112 * 16 * 96 / 2 + 112 * 112 * 96 * (9 + 8);
        assert_eq!(fbnet_macs(&first), (expected + block) as f64);
        assert_eq!(fbnet_blocks("skip"), None);
        assert_eq!(fbnet_blocks(&"k4_e1 ".repeat(22)), None);
    }

    #[test]
    fn cells_are_six_edges() {
        let cell = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|";
        assert_eq!(edges(cell), Some(vec![3, 1, 0, 4, 2, 1]));
        assert_eq!(edges("|none~0|"), None);
    }

    #[test]
    fn bad_tables_name_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latency.csv");
        let check = |text: &str, words: &str| {
            std::fs::write(&path, text).unwrap();
            let error = LatencyTable::fbnet(&path).unwrap_err().to_string();
            assert!(error.contains("latency.csv") && error.contains(words), "{error}");
        };
        let ops = "skip ".repeat(22);
        check("", "no column `ops`");
        check("index,ops,a,b\n0,skip\n", "line 2: 2 columns, not 4");
        check("index,ops,a,b\n0,skip,1,2\n", "line 2: `skip` is no network");
        check(&format!("index,ops,a,b\n0,{ops},1,2\n1,{ops},x,2\n"), "line 3: `x` is no latency");
        check(&format!("index,ops,a,b\n0,{ops},-1,2\n"), "`-1` is no latency");
        check(&format!("index,ops,a\n0,{ops},1\n"), "two devices");
        std::fs::remove_file(&path).unwrap();
        assert!(LatencyTable::fbnet(&path).unwrap_err().to_string().starts_with("cannot read "));
    }
}
