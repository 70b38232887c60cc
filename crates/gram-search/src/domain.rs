//! Search domains: spaces of categorical decisions in which strategies move, whether a table, or children to be trained.
//!
//! A [`Point`] gives every decision of a [`Domain`] a value: the operator on an edge of a cell, or whether a stage's edge is there. A domain
//! is never enumerated: strategies draw points, move by single edits, and look at features. Points that compute the same function belong
//! to one class, whose evaluation they share.

mod graph;
mod point;
mod weights;

use rand_chacha::ChaCha8Rng;

pub use graph::{FunctionGraph, GraphError, WL_DEPTH};
pub use point::{ClassKey, Decision, Histogram, Point};
pub use weights::DecisionWeights;

/// Draws of a random point before a domain is taken to have none that is feasible.
pub const MAX_DRAWS: usize = 10_000;

/// A space of categorical decisions.
///
/// Implement it for whatever is searched; the strategies of [`crate::strategies`] need nothing else. Nothing here asks for the number of
/// points, which may be astronomic: `neighbours` is the largest set that is ever listed.
///
/// # Contract
/// All methods are pure functions. Points with equal [`Domain::class_of`] have equal [`Domain::histogram`] and the same
/// [`Domain::members`]; they may differ in feasibility, for equal functions can have different costs.
/// # Example
/// Bit strings of five bits, in which the order of the first two does not matter:
/// ```
/// use gram_search::domain::{ClassKey, Decision, Domain, Histogram, Point};
///
/// struct Bits(Vec<Decision>);
/// impl Domain for Bits {
///     fn decisions(&self) -> &[Decision] {
///         &self.0
///     }
///     fn is_feasible(&self, point: &Point) -> bool {
///         point.values().contains(&1)
///     }
///     fn class_of(&self, point: &Point) -> ClassKey {
///         let mut bits = point.values().to_vec();
///         bits[..2].sort_unstable();
///         ClassKey::of_bytes(&bits)
///     }
///     fn members(&self, point: &Point) -> Vec<Point> {
///         let mut other = point.clone();
///         other.swap(0, 1);
///         vec![point.clone(), other]
///     }
///     fn histogram(&self, point: &Point) -> Histogram {
///         point.values().iter().map(|&bit| (u64::from(bit), 1.0)).collect()
///     }
/// }
///
/// let bits = Bits((0..5).map(|i| Decision::new(format!("bit {i}"), 2)).collect());
/// let point = Point::from([0, 1, 0, 0, 0]);
/// // 11000, and one of the other three bits on, which both members reach; no bit on is infeasible.
/// assert_eq!(bits.neighbours(&point).len(), 4);
/// ```
pub trait Domain: Sync {
    /// The decisions; a point has one value for each.
    fn decisions(&self) -> &[Decision];

    /// Whether the point may be proposed: it exists, and keeps every hard limit.
    fn is_feasible(&self, point: &Point) -> bool;

    /// Identity of the function that the point computes. Points of one class share one evaluation.
    fn class_of(&self, point: &Point) -> ClassKey;

    /// Points of the same class, the point itself among them; as many as the domain knows cheaply, in an order that depends on the class only.
    fn members(&self, point: &Point) -> Vec<Point> {
        vec![point.clone()]
    }

    /// What the point computes, as counts: say, the Weisfeiler-Lehman histogram of its [`FunctionGraph`]. Equal for all members of a class.
    fn histogram(&self, point: &Point) -> Histogram;

    /// The value of a decision that takes something away (no edge, no operator), if it has one. [`crate::strategies::AutoShrink`] needs them.
    fn removal(&self, _decision: usize) -> Option<u8> {
        None
    }

    /// A feasible point drawn at random; `None` if none was found in a bounded number of draws.
    ///
    /// Every decision is drawn uniformly, and infeasible points are drawn again.
    fn random(&self, rng: &mut ChaCha8Rng) -> Option<Point> {
        let weights = DecisionWeights::uniform(self.decisions());
        (0..MAX_DRAWS).map(|_| weights.draw(rng)).find(|point| self.is_feasible(point))
    }

    /// Feasible points of other classes that one edit of one member of the point's class reaches: one for each class, in a fixed order.
    ///
    /// A domain that is a sparse sample of its space may give the nearest points that it has instead.
    fn neighbours(&self, point: &Point) -> Vec<Point> {
        one_edit_neighbours(self, &self.members(point))
    }
}

/// Feasible points that one edit of one of `members` reaches: the first of each class other than the members' own.
pub fn one_edit_neighbours<D: Domain + ?Sized>(domain: &D, members: &[Point]) -> Vec<Point> {
    let mut known: std::collections::BTreeSet<ClassKey> = members.iter().map(|point| domain.class_of(point)).collect();
    let mut found = Vec::new();
    for member in members {
        for (index, decision) in domain.decisions().iter().enumerate() {
            for value in (0..decision.n_values()).filter(|&value| value != member.values()[index]) {
                let edited = member.with(index, value);
                if domain.is_feasible(&edited) && known.insert(domain.class_of(&edited)) {
                    found.push(edited);
                }
            }
        }
    }
    found
}
