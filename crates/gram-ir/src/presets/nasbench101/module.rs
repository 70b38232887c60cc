//! One module, i.e. one copy of a cell, with the benchmark's rule for channels.

use super::{NasBench101Cell, NasBench101Op};
use crate::presets::layers::Layers;
use crate::{Activation, Conv2d, NetworkError, NodeId, Pool};

/// Adds a module that turns `input` into `c_out` channels.
///
/// A vertex reads the sum of its sources, the module's input through a 1x1 projection; the output is the concatenation of its
/// interior sources plus, if there is an edge, the projected input.
pub(super) fn build(
    layers: &mut Layers,
    name: &str,
    cell: &NasBench101Cell,
    c_out: usize,
    input: NodeId,
) -> Result<NodeId, NetworkError> {
    let channels = vertex_channels(cell, c_out);
    let split = split_vertices(cell, &channels);
    let values = vec![Value::default(); cell.n_vertices()];
    let mut module = Module { layers, name, cell, input, channels, split, values };
    for vertex in 1..cell.n_vertices() - 1 {
        module.vertex(&format!("{name}.v{vertex}"), vertex)?;
    }
    module.output()
}

/// Channels of each vertex: the output's are shared out among its interior sources, the first ones getting one more where that does not
/// go up; other vertices have as many as the widest that they feed.
fn vertex_channels(cell: &NasBench101Cell, c_out: usize) -> Vec<usize> {
    let last = cell.n_vertices() - 1;
    let mut channels = vec![0; last + 1];
    channels[last] = c_out;
    let sources: Vec<usize> = (1..last).filter(|&vertex| cell.has_edge(vertex, last)).collect();
    for (i, &vertex) in sources.iter().enumerate() {
        channels[vertex] = c_out / sources.len() + usize::from(i < c_out % sources.len());
    }
    for vertex in (1..last).rev().filter(|&vertex| !cell.has_edge(vertex, last)) {
        let targets = (vertex + 1..last).filter(|&to| cell.has_edge(vertex, to));
        channels[vertex] = targets.map(|to| channels[to]).max().unwrap_or(0);
    }
    channels
}

/// Vertices that are needed without their last channel: by a target with one channel less, or by a pool that is itself split.
fn split_vertices(cell: &NasBench101Cell, channels: &[usize]) -> Vec<bool> {
    let last = channels.len() - 1;
    let mut split = vec![false; last + 1];
    for vertex in (1..last).rev() {
        split[vertex] = (vertex + 1..last)
            .filter(|&to| cell.has_edge(vertex, to))
            .any(|to| channels[to] < channels[vertex] || (split[to] && cell.op(to) == NasBench101Op::MaxPool3x3));
    }
    split
}

/// Where the output of a vertex stands in the network.
#[derive(Clone, Copy, Default)]
struct Value {
    whole: Option<NodeId>,
    /// All channels but the last, and the last.
    parts: Option<[NodeId; 2]>,
}

/// Which channels of a vertex.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    AllButLast,
    Last,
}

struct Module<'a> {
    layers: &'a mut Layers,
    name: &'a str,
    cell: &'a NasBench101Cell,
    input: NodeId,
    channels: Vec<usize>,
    split: Vec<bool>,
    values: Vec<Value>,
}

impl Module<'_> {
    fn vertex(&mut self, name: &str, vertex: usize) -> Result<(), NetworkError> {
        let (op, channels) = (self.cell.op(vertex), self.channels[vertex]);
        let pooled = op == NasBench101Op::MaxPool3x3;
        if !self.split[vertex] {
            let input = self.vertex_input(&format!("{name}.in"), vertex, Part::Whole)?;
            self.values[vertex].whole = Some(self.operator(name, op, channels, input)?);
            return Ok(());
        }
        // A pool keeps channels apart, so its parts need only those of its input; a convolution reads all of them.
        let mut parts = [self.input; 2];
        let mut whole_input = None;
        let sizes = [(Part::AllButLast, channels - 1, "most"), (Part::Last, 1, "last")];
        for (slot, (part, size, suffix)) in parts.iter_mut().zip(sizes) {
            let input = match whole_input {
                Some(input) => input,
                None if pooled => self.vertex_input(&format!("{name}.{suffix}.in"), vertex, part)?,
                None => *whole_input.insert(self.vertex_input(&format!("{name}.in"), vertex, Part::Whole)?),
            };
            *slot = self.operator(&format!("{name}.{suffix}"), op, size, input)?;
        }
        self.values[vertex].parts = Some(parts);
        Ok(())
    }

    fn operator(&mut self, name: &str, op: NasBench101Op, c_out: usize, input: NodeId) -> Result<NodeId, NetworkError> {
        let kernel = match op {
            NasBench101Op::MaxPool3x3 => {
                return self.layers.max_pool(&format!("{name}.pool"), Pool::new(3, 1, 1), input);
            }
            NasBench101Op::Conv1x1 => 1,
            NasBench101Op::Conv3x3 => 3,
        };
        self.conv(&format!("{name}.conv"), kernel, c_out, input)
    }

    fn conv(&mut self, name: &str, kernel: usize, c_out: usize, input: NodeId) -> Result<NodeId, NetworkError> {
        let conv = Conv2d::new(self.layers.channels(input), c_out, kernel);
        self.layers.conv_bn_act(name, conv, Activation::Relu, input)
    }

    /// The sum of what the sources of `vertex` give; of those channels only that `part` says.
    fn vertex_input(&mut self, name: &str, vertex: usize, part: Part) -> Result<NodeId, NetworkError> {
        let channels = self.channels[vertex];
        let mut terms = Vec::new();
        for from in (1..vertex).filter(|&from| self.cell.has_edge(from, vertex)) {
            let part = if self.channels[from] > channels { Part::AllButLast } else { part };
            terms.push(self.read(from, part)?);
        }
        if self.cell.has_edge(0, vertex) {
            let size = match part {
                Part::Whole => channels,
                Part::AllButLast => channels - 1,
                Part::Last => 1,
            };
            terms.push(self.conv(&format!("{name}_projection"), 1, size, self.input)?);
        }
        self.layers.sum(name, &terms)
    }

    /// The node that gives these channels of a vertex; split vertices are put together when somebody reads them whole.
    fn read(&mut self, vertex: usize, part: Part) -> Result<NodeId, NetworkError> {
        const BUILT: &str = "invariant: vertices are built in order, and split where a part of them is read";
        let Value { whole, parts } = self.values[vertex];
        match (part, whole) {
            (Part::Whole, Some(whole)) => Ok(whole),
            (Part::Whole, None) => {
                let whole = self.layers.concat(&format!("{}.v{vertex}.concat", self.name), &parts.expect(BUILT))?;
                self.values[vertex].whole = Some(whole);
                Ok(whole)
            }
            (Part::AllButLast, _) => Ok(parts.expect(BUILT)[0]),
            (Part::Last, _) => Ok(parts.expect(BUILT)[1]),
        }
    }

    fn output(&mut self) -> Result<NodeId, NetworkError> {
        let (name, last) = (self.name, self.cell.n_vertices() - 1);
        let mut leaves = Vec::new();
        for from in (1..last).filter(|&from| self.cell.has_edge(from, last)) {
            leaves.push(self.read(from, Part::Whole)?);
        }
        let mut terms = Vec::new();
        if !leaves.is_empty() {
            terms.push(self.layers.concat(&format!("{name}.concat"), &leaves)?);
        }
        if self.cell.has_edge(0, last) {
            terms.push(self.conv(&format!("{name}.projection"), 1, self.channels[last], self.input)?);
        }
        self.layers.sum(&format!("{name}.add"), &terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Network, Op, Shape, Tensor, Weights, reference};

    fn channels(text: &str, c_out: usize) -> (Vec<usize>, Vec<bool>) {
        let cell: NasBench101Cell = text.parse().unwrap();
        let channels = vertex_channels(&cell, c_out);
        let split = split_vertices(&cell, &channels);
        (channels, split)
    }

    #[test]
    fn the_first_sources_of_the_output_get_the_rest() {
        // 128 = 43 + 43 + 42; vertex 1 feeds vertices with 43 and 42 channels.
        let text =
            "011000/001110/000001/000001/000001/000000:conv1x1-bn-relu;conv1x1-bn-relu;conv1x1-bn-relu;conv1x1-bn-relu";
        let (channels, split) = channels(text, 128);
        assert_eq!(channels[1..], [43, 43, 43, 42, 128]);
        assert_eq!(split, [false, true, false, false, false, false]);
    }

    /// The chain of pools before a vertex that is read both ways is split up to the first convolution.
    #[test]
    fn split_pools_split_their_sources() {
        let text = "0100000/0010000/0001110/0000001/0000001/0000001/0000000:\
                    conv3x3-bn-relu;maxpool3x3;conv1x1-bn-relu;conv1x1-bn-relu;conv1x1-bn-relu";
        let (channels, split) = channels(text, 128);
        assert_eq!(channels[1..], [43, 43, 43, 43, 42, 128]);
        assert_eq!(split[1..=5], [true, true, false, false, false]);
        let network = text.parse::<NasBench101Cell>().unwrap().network(Shape::chw(3, 8, 8), 10).unwrap();
        let op = |name: &str| network.node(network.find(&format!("stacks.0.modules.0.{name}")).unwrap()).op;
        assert_eq!(op("v1.most.conv"), Op::Conv(Conv2d::new(43, 42, 3)), "reads the whole projection");
        assert_eq!(op("v1.last.conv"), Op::Conv(Conv2d::new(43, 1, 3)));
    }

    /// The first `channels` channels of one image.
    fn truncated(tensor: &Tensor, channels: usize) -> Tensor {
        let &[_, _, h, w] = tensor.shape() else { panic!("one image") };
        Tensor::new(vec![1, channels, h, w], tensor.data()[..channels * h * w].to_vec()).unwrap()
    }

    /// Runs what `add` adds to a network of the tensor's shape, with those of `weights` that it needs.
    fn run(tensor: &Tensor, weights: &Weights, add: impl FnOnce(&mut Layers, NodeId) -> NodeId) -> Tensor {
        let &[_, c, h, w] = tensor.shape() else { panic!("one image") };
        let mut layers = Layers::new(Shape::chw(c, h, w)).unwrap();
        let input = layers.input();
        let output = add(&mut layers, input);
        let network = layers.finish(output).unwrap();
        let mut own = Weights::new();
        for spec in network.tensors() {
            own.insert(spec.name.clone(), weights.get(&spec.name).unwrap().clone());
        }
        reference::run(&network, &own, tensor).unwrap()
    }

    /// Convolution, norm and ReLU under `name`, or under the names of its two parts one after the other.
    fn conv(tensor: &Tensor, weights: &Weights, names: [String; 3], kernel: usize, c_out: usize) -> Tensor {
        let one = |name: &str, c_out| {
            let conv = Conv2d::new(tensor.shape()[1], c_out, kernel);
            run(tensor, weights, |layers, input| layers.conv_bn_act(name, conv, Activation::Relu, input).unwrap())
        };
        let [whole, most, last] = names;
        if weights.get(&format!("{whole}.weight")).is_ok() {
            return one(&whole, c_out);
        }
        let (most, last) = (one(&most, c_out - 1), one(&last, 1));
        let data = [most.data(), last.data()].concat();
        Tensor::new(vec![1, c_out, tensor.shape()[2], tensor.shape()[3]], data).unwrap()
    }

    fn add(sum: Option<Tensor>, term: Tensor) -> Option<Tensor> {
        let Some(mut sum) = sum else { return Some(term) };
        sum.data_mut().iter_mut().zip(term.data()).for_each(|(sum, term)| *sum += term);
        Some(sum)
    }

    /// The concatenated leaves of a module named `m`, with truncation as the benchmark has it.
    fn slow_module(cell: &NasBench101Cell, channels: &[usize], weights: &Weights, image: &Tensor) -> Vec<f64> {
        let last = channels.len() - 1;
        let mut values = vec![image.clone()];
        for (vertex, &c_out) in channels.iter().enumerate().take(last).skip(1) {
            let name = format!("m.v{vertex}");
            let names = |suffix: &str| ["", ".most", ".last"].map(|part| format!("{name}{part}.{suffix}"));
            let mut sum = None;
            for from in (1..vertex).filter(|&from| cell.has_edge(from, vertex)) {
                sum = add(sum, truncated(&values[from], c_out));
            }
            if cell.has_edge(0, vertex) {
                sum = add(sum, conv(image, weights, names("in_projection"), 1, c_out));
            }
            let sum = sum.unwrap();
            values.push(match cell.op(vertex) {
                NasBench101Op::Conv1x1 => conv(&sum, weights, names("conv"), 1, c_out),
                NasBench101Op::Conv3x3 => conv(&sum, weights, names("conv"), 3, c_out),
                NasBench101Op::MaxPool3x3 => {
                    run(&sum, weights, |layers, input| layers.max_pool("pool", Pool::new(3, 1, 1), input).unwrap())
                }
            });
        }
        let leaves = (1..last).filter(|&from| cell.has_edge(from, last));
        leaves.flat_map(|from| values[from].data().to_vec()).collect()
    }

    /// Computing a vertex in two parts gives what truncating it gives.
    #[test]
    fn parts_compute_what_truncation_computes() {
        let cells = [
            "0110000/0010000/0001110/0000001/0000001/0000001/0000000:\
             conv3x3-bn-relu;maxpool3x3;conv1x1-bn-relu;conv3x3-bn-relu;conv1x1-bn-relu",
            "0100000/0011000/0001110/0000001/0000001/0000001/0000000:\
             conv3x3-bn-relu;conv1x1-bn-relu;maxpool3x3;conv3x3-bn-relu;maxpool3x3",
            "011100/001000/000110/000011/000001/000000:maxpool3x3;maxpool3x3;maxpool3x3;conv1x1-bn-relu",
        ];
        for (i, text) in cells.into_iter().enumerate() {
            let cell: NasBench101Cell = text.parse().unwrap();
            let mut layers = Layers::new(Shape::chw(4, 5, 6)).unwrap();
            let input = layers.input();
            let tip = build(&mut layers, "m", &cell, 5, input).unwrap();
            let network: Network = layers.finish(tip).unwrap();
            assert!(network.nodes().iter().any(|node| node.name.contains(".most.")), "cell {i} has a split vertex");
            let (weights, image) = (Weights::arbitrary(&network, 1), Tensor::arbitrary(&[1, 4, 5, 6], 2));
            let fast = reference::run(&network, &weights, &image).unwrap();
            let slow = slow_module(&cell, &vertex_channels(&cell, 5), &weights, &image);
            assert_eq!(fast.data().len(), slow.len());
            assert!(fast.data().iter().zip(&slow).all(|(a, b)| (a - b).abs() < 1e-9), "cell {i}");
        }
    }
}
