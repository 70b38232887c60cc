//! Exact costs of children, quick enough to check every proposal.

use gram_ir::{CellNodeId, Cost, NodeInputs, SpaceCosts};

use crate::child::NodeSet;
use crate::{Child, MetaGraph, MetaStage, StageEdges};

impl MetaGraph {
    /// MACs, params and deployed params of the network of a child, without building it: the numbers that lowering it gives. `costs` are those
    /// of the space in the child's layout ([`Space::fixed`](gram_ir::Space::fixed)).
    ///
    /// None where there is no such network: it would have more channels or nodes than are allowed, or the child or the costs are those of
    /// another space.
    ///
    /// # Complexity
    /// One step per live node.
    /// # Example
    /// ```
    /// use gram_ir::{Limits, Macs, SpaceCosts, space_preset, space_preset_io};
    /// use gram_meta::{MetaConfig, MetaGraph};
    /// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
    /// let (space, (input, num_classes)) = space_preset("swiftnet-vww").zip(space_preset_io("swiftnet-vww")).unwrap();
    /// let costs = SpaceCosts::new(&space, input, num_classes)?;
    /// let limits = Limits { max_macs: Some(Macs(60_000_000)), max_params: None, ..Limits::default() };
    /// let meta = MetaGraph::new(&space, MetaConfig::default(), 0)?;
    /// let keeps_limits = |child: &_| meta.cost(&costs, child).is_some_and(|cost| limits.allow(&cost));
    /// let child = meta.sample(&mut ChaCha8Rng::seed_from_u64(0), &keeps_limits)?;
    /// let network = space.assemble(input, num_classes, &meta.cells(&child)?).lower()?;
    /// assert!(network.cost().macs <= Macs(60_000_000));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cost(&self, costs: &SpaceCosts, child: &Child) -> Option<Cost> {
        self.check_child(child).ok()?;
        costs.of_nodes(self.stages.iter().zip(child.stages()).map(|(meta, kept)| live_nodes(meta, kept)))
    }
}

/// The live operator nodes of a stage, ascending.
fn live_nodes<'a>(meta: &'a MetaStage, kept: &'a StageEdges) -> impl Iterator<Item = NodeInputs> + Clone + 'a {
    let feeding: NodeSet = kept.sources().iter().fold(0, |all, sources| all | sources);
    let live = kept.sources().iter().enumerate().filter(|(_, sources)| **sources != 0);
    live.map(move |(node, &sources)| NodeInputs {
        op: meta.op(kept, CellNodeId(node as u16)),
        from_input: sources & 1 == 1,
        n_operators: (sources & !1).count_ones() as usize,
        is_leaf: feeding >> node & 1 == 0,
    })
}
