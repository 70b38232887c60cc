//! Copying a network node by node, with changes on the way: what all rewrites of networks are made of.

use crate::{Network, NetworkError, NodeId, Op};

/// A copy in the making; nodes of the old network are dealt with in their order.
pub(crate) struct Rebuild<'a> {
    old: &'a Network,
    new: Network,
    /// For each node of `old` the node of `new` that gives the same values; none for nodes that were left out.
    stand_ins: Vec<Option<NodeId>>,
}

impl<'a> Rebuild<'a> {
    /// A copy that has the input of `old` and nothing else.
    pub(crate) fn new(old: &'a Network) -> Self {
        let new = Network::new(old.input_shape());
        let mut stand_ins = vec![None; old.nodes().len()];
        stand_ins[old.input().index()] = Some(new.input());
        Self { old, new, stand_ins }
    }

    /// The new node that gives what `old` gave.
    ///
    /// # Panics
    /// If `old` was left out; a rewrite leaves out only what nobody reads any more.
    pub(crate) fn stand_in(&self, old: NodeId) -> NodeId {
        self.stand_ins[old.index()].expect("invariant: what is read was not left out")
    }

    /// Readers of `old` read the new node `new` from now on.
    pub(crate) fn replace(&mut self, old: NodeId, new: NodeId) {
        self.stand_ins[old.index()] = Some(new);
    }

    /// Copies `old` as it is, reading the stand-ins of its inputs.
    pub(crate) fn copy(&mut self, old: NodeId) -> Result<(), NetworkError> {
        self.copy_with(old, self.old.node(old).op)
    }

    /// Copies `old` with the operator `op` instead of its own.
    pub(crate) fn copy_with(&mut self, old: NodeId, op: Op) -> Result<(), NetworkError> {
        let inputs = self.inputs(old);
        let new = self.add(&self.old.node(old).name, op, &inputs)?;
        self.replace(old, new);
        Ok(())
    }

    /// Stand-ins of the inputs of `old`.
    pub(crate) fn inputs(&self, old: NodeId) -> Vec<NodeId> {
        self.old.node(old).inputs.iter().map(|&from| self.stand_in(from)).collect()
    }

    /// Adds a node that the old network does not have; `inputs` are new nodes.
    pub(crate) fn add(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId, NetworkError> {
        self.new.add(name, op, inputs)
    }

    /// The finished copy; its output is the stand-in of the old output.
    pub(crate) fn finish(mut self) -> Result<Network, NetworkError> {
        self.new.set_output(self.stand_in(self.old.output()))?;
        Ok(self.new)
    }
}
