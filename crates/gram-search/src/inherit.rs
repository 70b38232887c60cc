//! Weight inheritance: which trained child another one starts from.

use std::collections::BTreeSet;

use gram_ir::Network;

use crate::EvalKey;

/// A trained child whose weights another one starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Number of the child in its study, from 1.
    pub child: usize,
    /// The evaluation that has left the weights.
    pub key: EvalKey,
}

/// Children that were trained to the end.
#[derive(Default)]
pub(crate) struct Sources(Vec<(Source, BTreeSet<Tensor>)>);

/// Name and shape of a tensor.
type Tensor = (String, Vec<usize>);

impl Sources {
    pub(crate) fn add(&mut self, source: Source, network: &Network) {
        self.0.push((source, tensors(network).collect()));
    }

    /// The child that has the most tensors of the same name and shape, of equals the one with the smallest number; none if no child has any.
    ///
    /// Networks are those of cells in canonical form, so that names do not depend on how a child was proposed. The rule is ours: it counts
    /// what can be taken over, and needs no distance between graphs.
    pub(crate) fn nearest(&self, network: &Network) -> Option<Source> {
        let wanted: Vec<Tensor> = tensors(network).collect();
        let mut best: Option<(usize, Source)> = None;
        for (source, there) in &self.0 {
            let n = wanted.iter().filter(|tensor| there.contains(tensor)).count();
            let is_nearer = |(most, nearest): (usize, Source)| n > most || (n == most && source.child < nearest.child);
            if n > 0 && best.is_none_or(is_nearer) {
                best = Some((n, *source));
            }
        }
        best.map(|(_, source)| source)
    }
}

fn tensors(network: &Network) -> impl Iterator<Item = Tensor> {
    network.tensors().into_iter().map(|spec| (spec.name, spec.shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gram_ir::{Cell, Conv2d, Op, Shape};

    /// A chain of convolutions with these widths, and a classifier behind it.
    fn chain(widths: &[usize]) -> Network {
        let mut network = Network::new(Shape::chw(1, 4, 4));
        let (mut last, mut c_in) = (network.input(), 1);
        for (i, &width) in widths.iter().enumerate() {
            last = network.add(format!("conv{i}"), Op::Conv(Conv2d::new(c_in, width, 3)), &[last]).unwrap();
            c_in = width;
        }
        last = network.add("pool", Op::GlobalAvgPool, &[last]).unwrap();
        last = network.add("fc", Op::Linear { c_in, c_out: 2, bias: true }, &[last]).unwrap();
        network.set_output(last).unwrap();
        network
    }

    fn source(child: usize) -> Source {
        Source { child, key: EvalKey::new(&Cell::new().canonical_key(), "test", child as u64) }
    }

    #[test]
    fn the_nearest_child_is_the_one_with_the_most_equal_tensors() {
        let mut sources = Sources::default();
        assert_eq!(sources.nearest(&chain(&[4])), None);
        // The children come in no order here, so that ties are seen to be decided by their numbers.
        let children: [(usize, &[usize]); 4] = [(3, &[4, 4]), (1, &[4, 8]), (2, &[4, 4]), (4, &[4, 4, 4])];
        children.iter().for_each(|(child, widths)| sources.add(source(*child), &chain(widths)));
        let nearest = |widths: &[usize]| sources.nearest(&chain(widths)).map(|source| source.child);
        assert_eq!(nearest(&[4, 4]), Some(2), "itself; 3 is equal, 4 has all of its tensors too");
        assert_eq!(nearest(&[4, 4, 4]), Some(4));
        assert_eq!(nearest(&[4, 8]), Some(1));
        // The classifier's bias alone is equal, in all of them.
        assert_eq!(nearest(&[2, 2]), Some(1));
    }
}
