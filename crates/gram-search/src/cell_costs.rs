//! Exact costs of children in whatever layout they chose.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use gram_ir::{Cost, Layout, LowerError, Shape, Space, SpaceCosts};
use gram_meta::{Child, MetaGraph};

/// [`SpaceCosts`] of a space's layouts, each made when a child first chooses it.
#[derive(Debug)]
pub(crate) struct CellCosts {
    space: Space,
    input: Shape,
    num_classes: usize,
    /// None where no network of the layout can be lowered.
    by_layout: RwLock<BTreeMap<Layout, Option<SpaceCosts>>>,
}

impl CellCosts {
    /// For images of shape `input` before they are resized.
    ///
    /// # Errors
    /// [`LowerError`] if not even the smallest networks of a space without menus can be lowered.
    pub(crate) fn new(space: &Space, input: Shape, num_classes: usize) -> Result<Self, LowerError> {
        let mut by_layout = BTreeMap::new();
        if space.dimensions().is_empty() {
            by_layout.insert(Layout::default(), Some(SpaceCosts::new(space, input, num_classes)?));
        }
        Ok(Self { space: space.clone(), input, num_classes, by_layout: RwLock::new(by_layout) })
    }

    /// Costs of a child's network; none where there is no such network.
    pub(crate) fn of(&self, meta: &MetaGraph, child: &Child) -> Option<Cost> {
        // What a panicking thread left behind is whole: entries are put in at once.
        let known = self.by_layout.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(costs) = known.get(child.layout()) {
            return meta.cost(costs.as_ref()?, child);
        }
        drop(known);
        if !self.space.allows(child.layout()) {
            return None;
        }
        let (space, input) = self.space.plain(child.layout(), self.input);
        let costs = SpaceCosts::new(&space, input, self.num_classes).ok();
        let cost = costs.as_ref().and_then(|costs| meta.cost(costs, child));
        self.by_layout.write().unwrap_or_else(PoisonError::into_inner).insert(child.layout().clone(), costs);
        cost
    }
}
