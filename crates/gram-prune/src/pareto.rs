//! What nothing else beats in all respects.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use gram_ir::{Macs, Params};

use crate::costs::PartCost;

/// Something that costs and weighs.
pub(crate) trait Weighed {
    fn cost(&self) -> PartCost;
    fn retained_weight(&self) -> f64;
}

/// Removes what another item dominates, and all but the first of equals; leaves the items best first.
///
/// One dominates another if it weighs no less, costs no more MACs and no more params, and differs in one of these at least. Best is the
/// heaviest; of equally heavy ones the one with fewest MACs, then fewest params.
///
/// # Complexity
/// O(n log n): a sweep by descending weight over the staircase of MACs and params.
pub(crate) fn keep_undominated<T: Weighed>(items: &mut Vec<T>) {
    items.sort_by(best_first);
    // Fewer params for more MACs among the items so far, all of which weigh no less than the next.
    let mut stairs: BTreeMap<Macs, Params> = BTreeMap::new();
    items.retain(|item| {
        let PartCost { macs, params } = item.cost();
        if stairs.range(..=macs).next_back().is_some_and(|(_, &fewest)| fewest <= params) {
            return false;
        }
        while let Some((&above, _)) = stairs.range(macs..).next().filter(|&(_, &other)| other >= params) {
            stairs.remove(&above);
        }
        stairs.insert(macs, params);
        true
    });
}

fn best_first<T: Weighed>(a: &T, b: &T) -> Ordering {
    b.retained_weight().total_cmp(&a.retained_weight()).then_with(|| a.cost().cmp(&b.cost()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    type Item = (u64, u64, i8, usize);

    impl Weighed for Item {
        fn cost(&self) -> PartCost {
            PartCost { macs: Macs(self.0), params: Params(self.1) }
        }

        fn retained_weight(&self) -> f64 {
            f64::from(self.2)
        }
    }

    /// As the definition says, pair by pair.
    fn is_beaten(item: &Item, by: &Item) -> bool {
        let no_worse = by.0 <= item.0 && by.1 <= item.1 && by.2 >= item.2;
        let equal = (by.0, by.1, by.2) == (item.0, item.1, item.2);
        no_worse && (!equal || by.3 < item.3)
    }

    proptest! {
        #[test]
        fn as_pair_by_pair(points in vec((0..12u64, 0..12u64, -4..8i8), 0..60)) {
            let items: Vec<Item> = points.iter().enumerate().map(|(i, &(macs, params, w))| (macs, params, w, i)).collect();
            let mut expected: Vec<Item> =
                items.iter().filter(|item| !items.iter().any(|by| is_beaten(item, by))).copied().collect();
            expected.sort_by_key(|&(macs, params, weight, _)| (-weight, macs, params));
            let mut kept = items;
            keep_undominated(&mut kept);
            prop_assert_eq!(kept, expected);
        }
    }
}
