//! What the canonical key sees and what it does not.

use std::collections::BTreeMap;

use gram_ir::strategies::{arb_architecture, arb_cell, arb_cell_with_ops, arb_live_cell};
use gram_ir::{Activation, Architecture, Cell, CellNodeId, CellOp, CellOutput, Downsample, Head, StemLayer};
use proptest::prelude::*;

/// The cell with its operator nodes in another topological order, `priorities` deciding which of the ready nodes is next, and with
/// `gaps[i]` ids left out before the `i`-th.
fn relabelled(cell: &Cell, priorities: &[u32], gaps: &[u16]) -> Cell {
    let priority = |id: CellNodeId| priorities[id.index() % priorities.len()];
    let mut waiting: Vec<CellNodeId> = cell.ops().map(|(id, _)| id).collect();
    let mut new_ids = BTreeMap::from([(CellNodeId::INPUT, CellNodeId::INPUT)]);
    let mut last = 0;
    let mut other = Cell::new();
    while !waiting.is_empty() {
        let ready = |id: &CellNodeId| cell.predecessors(*id).iter().all(|from| new_ids.contains_key(from));
        let next = waiting.iter().copied().filter(ready).min_by_key(|&id| (priority(id), id)).expect("no cycle");
        waiting.retain(|&id| id != next);
        last += 1 + gaps[new_ids.len() % gaps.len()];
        other.add_node(CellNodeId(last), cell.op(next).unwrap()).unwrap();
        for from in cell.predecessors(next) {
            other.add_edge(new_ids[&from], CellNodeId(last)).unwrap();
        }
        new_ids.insert(next, CellNodeId(last));
    }
    other
}

fn labelling() -> impl Strategy<Value = (Vec<u32>, Vec<u16>)> {
    (prop::collection::vec(any::<u32>(), 40), prop::collection::vec(0..=3u16, 7))
}

/// The cells side by side on one input, a node of each in turn; `links` add edges between them.
fn side_by_side(parts: &[Cell], links: &[(prop::sample::Index, prop::sample::Index)]) -> Cell {
    let mut nodes: Vec<(CellNodeId, usize)> =
        parts.iter().enumerate().flat_map(|(part, cell)| cell.ops().map(move |(id, _)| (id, part))).collect();
    nodes.sort_unstable();
    let place = |node| CellNodeId(nodes.iter().position(|&other| other == node).map_or(0, |i| i as u16 + 1));
    let mut cell = Cell::new();
    for &(id, part) in &nodes {
        cell.add_node(place((id, part)), parts[part].op(id).unwrap()).unwrap();
        for from in parts[part].predecessors(id) {
            cell.add_edge(place((from, part)), place((id, part))).unwrap();
        }
    }
    for (a, b) in links.iter().map(|(a, b)| (a.index(nodes.len() + 1) as u16, b.index(nodes.len() + 1) as u16)) {
        if a != b {
            cell.add_edge(CellNodeId(a.min(b)), CellNodeId(a.max(b))).unwrap();
        }
    }
    cell
}

/// Copies of one or two small cells of equal operators, some with an edge between them: much symmetry, and some that is only apparent.
fn arb_symmetric_cell() -> impl Strategy<Value = Cell> {
    let part = || arb_cell_with_ops(3..=7, vec![CellOp::Sep3x3]);
    let links = prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 0..=2);
    (part(), part(), prop::collection::vec(prop::bool::weighted(0.2), 2..=6), links).prop_map(|(a, b, picks, links)| {
        let parts: Vec<Cell> = picks.iter().map(|&second| if second { b.clone() } else { a.clone() }).collect();
        side_by_side(&parts, &links)
    })
}

proptest! {
    // K1 relabelled cells share the key and the form.
    #[test]
    fn relabelled_cells_collide(cell in arb_cell(1..=30), (priorities, gaps) in labelling()) {
        let other = relabelled(&cell, &priorities, &gaps);
        prop_assert_eq!(other.canonical_key(), cell.canonical_key());
        prop_assert_eq!(other.canonical_form(), cell.canonical_form());
    }

    #[test]
    fn relabelled_symmetric_cells_collide(cell in arb_symmetric_cell(), (priorities, gaps) in labelling()) {
        let other = relabelled(&cell, &priorities, &gaps);
        prop_assert_eq!(other.canonical_key(), cell.canonical_key());
    }

    // K2 the form is the live part, is its own form and has the same key.
    #[test]
    fn forms_are_live_and_stay(cell in arb_cell(1..=30)) {
        let form = cell.canonical_form();
        prop_assert_eq!(form.canonical_form(), form.clone());
        prop_assert_eq!(form.canonical_key(), cell.canonical_key());
        prop_assert_eq!(form.live().len(), form.ops().len() + 1);
        prop_assert_eq!(form.live().len(), cell.live().len());
        prop_assert_eq!(form.leaves().len(), cell.leaves().len());
        prop_assert!(form.ops().enumerate().all(|(i, (id, _))| id.index() == i + 1));
    }

    // K3 dead nodes and edges out of them do not matter.
    #[test]
    fn dead_parts_do_not_matter(cell in arb_cell(2..=20), op in prop::sample::select(CellOp::ALL.to_vec())) {
        // Make room in front of every node, so that the dead one can feed them all.
        let mut other = relabelled(&cell, &[0], &[1]);
        let dead = CellNodeId(1);
        let targets: Vec<CellNodeId> = other.live().into_iter().filter(|&id| id != CellNodeId::INPUT).collect();
        other.add_node(dead, op).unwrap();
        for id in targets {
            other.add_edge(dead, id).unwrap();
        }
        prop_assert_eq!(other.canonical_key(), cell.canonical_key());
    }

    // K4 another multiset of operators or another number of live edges is another key.
    #[test]
    fn changes_of_the_live_part_matter(cell in arb_live_cell(2..=20), pick in any::<prop::sample::Index>()) {
        let key = cell.canonical_key();
        let live: Vec<CellNodeId> = cell.live().into_iter().skip(1).collect();
        let id = live[pick.index(live.len())];
        let old = cell.op(id).unwrap();
        let new = *CellOp::ALL.iter().find(|&&op| op != old).unwrap();
        prop_assert_ne!(with_op(&cell, id, new).canonical_key(), key.clone());

        let from = cell.predecessors(id).into_iter().find(|from| cell.live().contains(from)).unwrap();
        let mut fewer = cell.clone();
        fewer.remove_edge(from, id);
        prop_assert_ne!(fewer.canonical_key(), key);
    }

    // K5 the key of an architecture does not see the numbering of its cells nor its name, and sees every other field.
    #[test]
    fn architectures(
        architecture in arb_architecture(),
        (priorities, gaps) in labelling(),
        stage in any::<prop::sample::Index>(),
        change in 0..FIELDS.len(),
    ) {
        let key = architecture.canonical_key();
        let stage = stage.index(architecture.stages.len());
        let mut same = Architecture { name: "other".into(), ..architecture.clone() };
        same.stages[stage].cell = relabelled(&same.stages[stage].cell, &priorities, &gaps);
        prop_assert_eq!(same.canonical_key(), key.clone());
        let mut other = architecture;
        let (field, change) = FIELDS[change];
        change(&mut other, stage);
        prop_assert_ne!(other.canonical_key(), key, "{}", field);
    }
}

fn with_op(cell: &Cell, changed: CellNodeId, op: CellOp) -> Cell {
    let mut other = Cell::new();
    for (id, old) in cell.ops() {
        other.add_node(id, if id == changed { op } else { old }).unwrap();
    }
    for (from, to) in cell.edges() {
        other.add_edge(from, to).unwrap();
    }
    other
}

/// A field and a change of it; the second argument is the stage.
type Change = (&'static str, fn(&mut Architecture, usize));

const FIELDS: [Change; 16] = [
    ("input", |a, _| a.input.h += 1),
    ("num_classes", |a, _| a.num_classes += 200),
    ("activation", |a, _| {
        a.activation = if a.activation == Activation::Relu { Activation::Relu6 } else { Activation::Relu };
    }),
    ("stem, one more", |a, _| a.stem.push(StemLayer::Maxpool2)),
    ("stem, another kind", |a, _| {
        a.stem.insert(0, StemLayer::Maxpool2);
        if let Some(StemLayer::Conv { channels, kernel, stride }) = a.stem.get(1).copied() {
            a.stem[1] = StemLayer::Sep { channels, kernel, stride };
        }
    }),
    ("stem, stride", |a, _| match a.stem.first_mut() {
        Some(StemLayer::Conv { stride, .. } | StemLayer::Sep { stride, .. }) => *stride += 1,
        _ => a.stem.push(StemLayer::Conv { channels: 1, kernel: 1, stride: 1 }),
    }),
    ("stages, one more", |a, stage| a.stages.push(a.stages[stage].clone())),
    ("cell", |a, stage| {
        a.stages[stage].cell.add_node(CellNodeId(200), CellOp::Identity).unwrap();
        a.stages[stage].cell.add_edge(CellNodeId::INPUT, CellNodeId(200)).unwrap();
    }),
    ("repeats", |a, stage| a.stages[stage].repeats += 1),
    ("node_channels", |a, stage| a.stages[stage].node_channels += 1000),
    ("downsample", |a, stage| {
        let downsample = &mut a.stages[stage].downsample;
        *downsample = if *downsample == Downsample::None { Downsample::Maxpool2 } else { Downsample::None };
    }),
    ("project", |a, stage| {
        let output = &mut a.stages[stage].output;
        *output = CellOutput { project: output.project.map_or(Some(1), |_| None), ..*output };
    }),
    ("residual", |a, stage| a.stages[stage].output.residual ^= true),
    ("linear_leaves", |a, stage| a.stages[stage].output.linear_leaves ^= true),
    ("output activation", |a, stage| a.stages[stage].output.activation ^= true),
    ("head", |a, _| a.head = Head { conv: a.head.conv.map_or(Some(3), |_| None) }),
];
