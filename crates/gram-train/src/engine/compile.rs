//! From a lowered network to a [`Plan`].

use std::collections::BTreeMap;

use gram_ir::{Conv2d, Network, Node, NodeId, Op, TensorRole};
use gram_kernels::{Activation, Depthwise, Plane};

use super::plan::{Kind, Lanes, Map, MapId, NormTensors, Output, Plan, Site, Slice, blocks};

impl Plan {
    /// The maps that the network's output needs; with `input_gradient` the input's gradient is wanted too.
    pub(crate) fn compile(network: &Network, input_gradient: bool) -> Self {
        let tensors = network.tensors();
        let compiler = Compiler {
            network,
            readers: readers(network),
            tensors: tensors.iter().enumerate().map(|(i, spec)| ((spec.node, spec.role), i)).collect(),
            values: vec![Vec::new(); network.nodes().len()],
            maps: Vec::new(),
        };
        let mut plan = compiler.run(tensors.len());
        plan.link(input_gradient);
        plan
    }

    /// Notes who reads what, and which gradients are needed.
    fn link(&mut self, input_gradient: bool) {
        let n = self.maps.len();
        let mut reached = vec![false; n];
        for output in &self.outputs {
            reached[output.map] = true;
        }
        for j in (0..n).rev() {
            let blocked = matches!(self.maps[j].kind, Kind::Zero);
            for i in 0..self.maps[j].slices.len() {
                let Slice { map, block, .. } = self.maps[j].slices[i];
                reached[map] |= reached[j] && !blocked;
                if block == 0 && !blocked {
                    self.maps[map].readers.push((j, i));
                }
                if block == 0 && matches!(self.maps[j].kind, Kind::Sep { .. }) {
                    self.maps[map].separables.push((j, i));
                }
            }
        }
        for (j, &reached) in reached.iter().enumerate() {
            let trainable = match self.maps[j].kind {
                Kind::Input => input_gradient,
                Kind::Zero => false,
                Kind::Pointwise { .. } | Kind::Conv { .. } | Kind::Depthwise { .. } | Kind::Sep { .. } => true,
                _ => self.maps[j].inputs.iter().any(|&input| self.maps[input].differentiated),
            };
            self.maps[j].differentiated = reached && (trainable || self.maps[j].site.norm.is_some());
        }
        let maps = std::mem::take(&mut self.maps);
        for map in maps.iter().filter(|map| map.differentiated) {
            self.mark(map);
        }
        self.maps = maps;
        for j in 0..n {
            let readers = std::mem::take(&mut self.maps[j].readers);
            self.maps[j].readers = readers.into_iter().filter(|&(j, _)| self.maps[j].differentiated).collect();
        }
    }

    fn mark(&mut self, map: &Map) {
        let mut mark = |tensor: usize| self.differentiated[tensor] = true;
        for site in [Some(&map.site), inner(&map.kind)].into_iter().flatten() {
            site.norm.iter().for_each(|norm| [norm.scale, norm.shift].into_iter().for_each(&mut mark));
            site.bias.into_iter().for_each(&mut mark);
        }
        match map.kind {
            Kind::Pointwise { weight, .. } | Kind::Conv { weight, .. } | Kind::Depthwise { weight, .. } => mark(weight),
            Kind::Sep { depthwise, weight, .. } => [depthwise, weight].into_iter().for_each(mark),
            _ => {}
        }
    }
}

fn inner(kind: &Kind) -> Option<&Site> {
    match kind {
        Kind::Sep { inner, .. } => Some(inner),
        _ => None,
    }
}

/// For each node the needed nodes that read it, through identities; the network's output counts as a reader that is no node.
fn readers(network: &Network) -> Vec<Vec<Option<NodeId>>> {
    let mut readers: Vec<Vec<Option<NodeId>>> = vec![Vec::new(); network.nodes().len()];
    readers[network.output().index()].push(None);
    for (id, node) in network.iter().rev() {
        let mine = readers[id.index()].clone();
        if mine.is_empty() {
            continue;
        }
        for input in &node.inputs {
            match node.op {
                Op::Identity => readers[input.index()].extend(&mine),
                _ => readers[input.index()].push(Some(id)),
            }
        }
    }
    readers
}

struct Compiler<'a> {
    network: &'a Network,
    readers: Vec<Vec<Option<NodeId>>>,
    /// Index of each tensor in [`Network::tensors`].
    tensors: BTreeMap<(NodeId, TensorRole), usize>,
    /// The maps whose concatenation a node gives.
    values: Vec<Vec<MapId>>,
    maps: Vec<Map>,
}

impl Compiler<'_> {
    fn run(mut self, n_tensors: usize) -> Plan {
        // Nodes that became part of a separable convolution.
        let mut done = vec![false; self.network.nodes().len()];
        for (id, node) in self.network.iter() {
            if (self.readers[id.index()].is_empty() && id != self.network.input()) || done[id.index()] {
                continue;
            }
            if let Some(parts) = self.separable(id, node) {
                parts.inner.iter().for_each(|id| done[id.index()] = true);
                self.values[parts.pointwise.index()] = vec![self.sep(id, node, &parts)];
                done[parts.pointwise.index()] = true;
                continue;
            }
            self.values[id.index()] = self.value(id, node);
        }
        let (mut outputs, mut first) = (Vec::new(), 0);
        for &map in &self.values[self.network.output().index()] {
            outputs.push(Output { map, first });
            first += self.channels(map);
        }
        Plan { maps: self.maps, outputs, n_out: first, differentiated: vec![false; n_tensors] }
    }

    fn channels(&self, map: MapId) -> usize {
        self.maps[map].site.blocks.last().map_or(0, |lanes| lanes.first + lanes.depth)
    }

    fn value(&mut self, id: NodeId, node: &Node) -> Vec<MapId> {
        let inputs: Vec<Vec<MapId>> = node.inputs.iter().map(|input| self.values[input.index()].clone()).collect();
        match node.op {
            Op::Concat => inputs.concat(),
            Op::Identity => inputs.concat(),
            Op::BatchNorm { .. } => {
                let map = self.owned(node, |site| site.norm.is_none() && site.activation == Activation::IDENTITY);
                self.maps[map].site.norm = Some(self.norm(id));
                vec![map]
            }
            Op::Act { activation } => {
                let map = self.owned(node, |site| site.activation == Activation::IDENTITY);
                self.maps[map].site.activation = kernel_activation(activation);
                vec![map]
            }
            _ => vec![self.operator(id, node, &inputs)],
        }
    }

    /// The map that a norm or activation may be put on: the only one that `node` reads, if nobody else does and it is `free`, else a copy.
    fn owned(&mut self, node: &Node, free: impl Fn(&Site) -> bool) -> MapId {
        let source = node.inputs[0];
        let value = self.values[source.index()].clone();
        let owned = match *value.as_slice() {
            [map] if self.root_readers(source) == 1 && free(&self.maps[map].site) => Some(map),
            _ => None,
        };
        owned.unwrap_or_else(|| self.add(node, Kind::Sum, None, std::slice::from_ref(&value)))
    }

    /// Readers of what a node gives, through the identities that it may be.
    fn root_readers(&self, mut id: NodeId) -> usize {
        while self.network.node(id).op == Op::Identity {
            id = self.network.node(id).inputs[0];
        }
        self.readers[id.index()].len()
    }

    fn operator(&mut self, id: NodeId, node: &Node, inputs: &[Vec<MapId>]) -> MapId {
        let kind = match node.op {
            Op::Input { .. } => Kind::Input,
            Op::Zero => Kind::Zero,
            Op::Conv(conv) => self.conv(id, conv),
            // A linear layer works on single pixels, as a 1x1 convolution does.
            Op::Linear { c_in, c_out, bias } => self.conv(id, Conv2d::new(c_in, c_out, 1).bias(bias)),
            Op::MaxPool(pool) => Kind::MaxPool(pool),
            Op::AvgPool(pool) => Kind::AvgPool(pool),
            Op::GlobalAvgPool => Kind::Global,
            _ => Kind::Sum,
        };
        let bias = self.tensors.get(&(id, TensorRole::Bias)).copied();
        self.add(node, kind, bias, inputs)
    }

    fn conv(&self, id: NodeId, conv: Conv2d) -> Kind {
        let weight = self.tensors[&(id, TensorRole::Weight)];
        if conv.is_depthwise() {
            Kind::Depthwise { conv, weight }
        } else if conv.kernel == 1 && conv.stride == 1 && conv.padding == 0 {
            Kind::Pointwise { conv, weight }
        } else {
            Kind::Conv { conv, weight }
        }
    }

    fn norm(&self, id: NodeId) -> NormTensors {
        let tensor = |role| self.tensors[&(id, role)];
        NormTensors {
            scale: tensor(TensorRole::NormScale),
            shift: tensor(TensorRole::NormShift),
            mean: tensor(TensorRole::RunningMean),
            var: tensor(TensorRole::RunningVar),
        }
    }

    /// Adds a map of the shape of `node`; `terms` are its inputs, each a concatenation.
    fn add(&mut self, node: &Node, kind: Kind, bias: Option<usize>, terms: &[Vec<MapId>]) -> MapId {
        let plane = Plane { h: node.shape.h, w: node.shape.w };
        let per_term = kind == Kind::Sum;
        let (mut slices, mut inputs) = (Vec::new(), Vec::new());
        let mut first = 0;
        for term in terms {
            first = if per_term { 0 } else { first };
            for &map in term {
                let site = &self.maps[map].site;
                for (block, lanes) in site.blocks.iter().enumerate() {
                    let lanes = Lanes { first: first + lanes.first, depth: lanes.depth };
                    slices.push(Slice { input: inputs.len(), map, block, lanes });
                }
                first += self.channels(map);
                inputs.push(map);
            }
        }
        let lanes = match kind {
            Kind::Input | Kind::Zero | Kind::Pointwise { .. } | Kind::Conv { .. } | Kind::Sep { .. } => {
                blocks([node.shape.c])
            }
            // As in the first term.
            Kind::Sum => {
                let n = terms.first().map_or(0, |term| term.iter().map(|&map| self.maps[map].site.blocks.len()).sum());
                slices[..n].iter().map(|slice| slice.lanes).collect()
            }
            _ => slices.iter().map(|slice| slice.lanes).collect(),
        };
        let site = Site { blocks: lanes, pixels: plane.pixels(), bias, norm: None, activation: Activation::IDENTITY };
        let (readers, separables, differentiated) = (Vec::new(), Vec::new(), false);
        self.maps.push(Map { plane, site, kind, inputs, slices, readers, separables, differentiated });
        self.maps.len() - 1
    }

    /// The nodes of the separable convolution that begins with `node`, if one does.
    fn separable(&self, id: NodeId, node: &Node) -> Option<Separable> {
        let Op::Conv(depthwise) = node.op else { return None };
        let plain = Conv2d::depthwise(depthwise.c_in, depthwise.kernel);
        if depthwise != plain || !depthwise.is_depthwise() || !Depthwise::<f32>::is_supported(depthwise.kernel) {
            return None;
        }
        let norm = self.only_reader(id)?;
        let Op::BatchNorm { .. } = self.network.node(norm).op else { return None };
        let mut next = self.only_reader(norm)?;
        let mut inner = vec![norm];
        let mut activation = Activation::IDENTITY;
        if let Op::Act { activation: act } = self.network.node(next).op {
            activation = kernel_activation(act);
            inner.push(next);
            next = self.only_reader(next)?;
        }
        match self.network.node(next).op {
            Op::Conv(conv) if conv.kernel == 1 && conv.stride == 1 && conv.padding == 0 && !conv.is_depthwise() => {
                Some(Separable { norm, inner, activation, pointwise: next, conv })
            }
            _ => None,
        }
    }

    fn only_reader(&self, id: NodeId) -> Option<NodeId> {
        match *self.readers[id.index()].as_slice() {
            // Behind an identity the reader does not read this node itself; such networks go the general way.
            [Some(reader)] if self.network.node(reader).inputs.contains(&id) => Some(reader),
            _ => None,
        }
    }

    fn sep(&mut self, id: NodeId, node: &Node, parts: &Separable) -> MapId {
        let Op::Conv(depthwise) = node.op else { unreachable!("invariant: a separable convolution begins with one") };
        let inputs = vec![self.values[node.inputs[0].index()].clone()];
        let inner = Site {
            blocks: Vec::new(),
            pixels: node.shape.pixels(),
            bias: None,
            norm: Some(self.norm(parts.norm)),
            activation: parts.activation,
        };
        let kind = Kind::Sep {
            kernel: depthwise.kernel,
            depthwise: self.tensors[&(id, TensorRole::Weight)],
            inner,
            conv: parts.conv,
            weight: self.tensors[&(parts.pointwise, TensorRole::Weight)],
        };
        let bias = self.tensors.get(&(parts.pointwise, TensorRole::Bias)).copied();
        let pointwise = self.network.node(parts.pointwise);
        let map = self.add(pointwise, kind, bias, &inputs);
        let lanes = self.maps[map].slices.iter().map(|slice| slice.lanes).collect();
        if let Kind::Sep { inner, .. } = &mut self.maps[map].kind {
            inner.blocks = lanes;
        }
        map
    }
}

/// Nodes behind a depthwise convolution that is computed with them.
struct Separable {
    norm: NodeId,
    /// Norm and activation.
    inner: Vec<NodeId>,
    activation: Activation,
    pointwise: NodeId,
    conv: Conv2d,
}

fn kernel_activation(activation: gram_ir::Activation) -> Activation {
    match activation {
        gram_ir::Activation::Relu => Activation::RELU,
        gram_ir::Activation::Relu6 => Activation::RELU6,
        gram_ir::Activation::HardSwish => Activation::HardSwish,
    }
}
