//! Transforms: named rewrites of a graph, run by one engine that is all-or-nothing.

use std::fmt;

use crate::{CellError, NetworkError, TensorError};

/// A graph that can tell whether it is well-formed.
pub trait Verify {
    /// Checks every invariant of the graph.
    ///
    /// # Errors
    /// [`Violations`] with every broken invariant, not the first only, each with the ids and values that break it.
    fn verify(&self) -> Result<(), Violations>;
}

/// Broken invariants of one graph, in the order in which they were found; displays as one line, separated by `; `.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations(pub Vec<String>);

impl Violations {
    /// Notes a broken invariant.
    pub fn push(&mut self, what: impl Into<String>) {
        self.0.push(what.into());
    }

    /// Notes the broken invariants of a part of the graph, each behind `part: `.
    pub fn extend_from(&mut self, part: impl fmt::Display, inner: Self) {
        self.0.extend(inner.0.into_iter().map(|what| format!("{part}: {what}")));
    }

    /// `Ok` if nothing was noted.
    ///
    /// # Errors
    /// `self` if something was.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Violations {}

/// A rewrite of a graph `G`. Run it through [`apply_checked`].
pub trait Transform<G> {
    /// Kebab-case name shown in logs and errors, e.g. `prune-edges`.
    fn name(&self) -> &'static str;

    /// Rewrites `graph`; `Ok(false)` if there was nothing to do and `graph` is unchanged, `Ok(true)` if it is another graph now.
    ///
    /// # Errors
    /// [`TransformFailure`]; `graph` may be half rewritten then, [`apply_checked`] throws it away.
    fn apply(&self, graph: &mut G) -> Result<bool, TransformFailure>;
}

/// Why a transform could not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransformFailure {
    /// An edit of a cell was refused.
    #[error(transparent)]
    Cell(#[from] CellError),
    /// An edit of a network was refused.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A tensor does not fit.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The cell of one stage could not be rewritten.
    #[error("stage {stage}: {source}")]
    Stage {
        /// Index of the stage, from 0.
        stage: usize,
        /// What went wrong there.
        source: Box<TransformFailure>,
    },
    /// The graph is not one that this transform can rewrite; says what is in the way.
    #[error("{0}")]
    Unsuitable(String),
}

/// Why [`apply_checked`] left a graph as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransformError {
    /// The transform gave up.
    #[error("{pass}: {source}")]
    Failed {
        /// Name of the transform.
        pass: &'static str,
        /// Why.
        source: Box<TransformFailure>,
    },
    /// The transform made a graph that is not well-formed: a bug in the transform.
    #[error("{pass} broke the graph: {source}")]
    BrokeGraph {
        /// Name of the transform.
        pass: &'static str,
        /// Invariants that the result breaks.
        source: Violations,
    },
    /// The graph was not well-formed before, and is not after the transform.
    #[error("{pass} was given a broken graph: {source}")]
    WasBroken {
        /// Name of the transform.
        pass: &'static str,
        /// Invariants that the graph broke before.
        source: Violations,
    },
    /// The transform said that it changed the graph and did not, or the other way round: a bug in the transform.
    #[error("{pass} reported changed = {reported}, which is not so")]
    Misreported {
        /// Name of the transform.
        pass: &'static str,
        /// What it said.
        reported: bool,
    },
}

/// Runs a transform on `graph`: either the whole rewrite, verified, or nothing.
///
/// Gives whether the graph changed.
///
/// # Errors
/// [`TransformError`] with the transform's name; `graph` is unchanged then.
/// # Complexity
/// One copy of the graph, one `verify`, one comparison.
/// # Example
/// ```
/// use gram_ir::{Cell, CellNodeId, CellOp, DropDeadNodes, apply_checked};
/// let mut cell = Cell::new();
/// cell.add_node(CellNodeId(1), CellOp::Conv1x1)?;
/// cell.add_node(CellNodeId(2), CellOp::Conv1x1)?;
/// cell.add_edge(CellNodeId::INPUT, CellNodeId(1))?;
/// assert!(apply_checked(&DropDeadNodes, &mut cell)?);
/// assert!(!cell.contains(CellNodeId(2)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn apply_checked<G: Verify + Clone + PartialEq>(
    transform: &dyn Transform<G>,
    graph: &mut G,
) -> Result<bool, TransformError> {
    let pass = transform.name();
    let mut next = graph.clone();
    let reported =
        transform.apply(&mut next).map_err(|source| TransformError::Failed { pass, source: Box::new(source) })?;
    if let Err(source) = next.verify() {
        return Err(match graph.verify() {
            Err(source) => TransformError::WasBroken { pass, source },
            Ok(()) => TransformError::BrokeGraph { pass, source },
        });
    }
    if reported != (next != *graph) {
        return Err(TransformError::Misreported { pass, reported });
    }
    *graph = next; // only a verified graph replaces the old one
    Ok(reported)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Well-formed if even.
    #[derive(Clone, Debug, PartialEq)]
    struct Number(i32);

    impl Verify for Number {
        fn verify(&self) -> Result<(), Violations> {
            let mut broken = Violations::default();
            if self.0 % 2 != 0 {
                broken.push(format!("{} is odd", self.0));
            }
            if self.0 < 0 {
                broken.push(format!("{} is negative", self.0));
            }
            broken.into_result()
        }
    }

    /// Adds `.0`, then says `.1`.
    struct AddThenSay(i32, Result<bool, TransformFailure>);

    impl Transform<Number> for AddThenSay {
        fn name(&self) -> &'static str {
            "add"
        }

        fn apply(&self, graph: &mut Number) -> Result<bool, TransformFailure> {
            graph.0 += self.0;
            self.1.clone()
        }
    }

    #[track_caller]
    fn refused(pass: &AddThenSay, before: i32, message: &str) {
        let mut number = Number(before);
        assert_eq!(apply_checked(pass, &mut number).unwrap_err().to_string(), message);
        assert_eq!(number, Number(before), "a refused rewrite changes nothing");
    }

    #[test]
    fn a_verified_result_replaces_the_graph() {
        let mut number = Number(2);
        assert_eq!(apply_checked(&AddThenSay(4, Ok(true)), &mut number), Ok(true));
        assert_eq!(apply_checked(&AddThenSay(0, Ok(false)), &mut number), Ok(false));
        assert_eq!(number, Number(6));
        let mut repaired = Number(3);
        assert_eq!(apply_checked(&AddThenSay(1, Ok(true)), &mut repaired), Ok(true));
    }

    #[test]
    fn everything_else_is_refused_and_undone() {
        let failure = TransformFailure::Unsuitable("it is full".into());
        refused(&AddThenSay(4, Err(failure)), 2, "add: it is full");
        refused(&AddThenSay(-3, Ok(true)), 2, "add broke the graph: -1 is odd; -1 is negative");
        refused(&AddThenSay(2, Ok(true)), 3, "add was given a broken graph: 3 is odd");
        refused(&AddThenSay(4, Ok(false)), 2, "add reported changed = false, which is not so");
        refused(&AddThenSay(0, Ok(true)), 2, "add reported changed = true, which is not so");
    }

    #[test]
    fn violations_of_parts_are_prefixed() {
        let mut broken = Violations::default();
        broken.extend_from("stage 1", Violations(vec!["a".into(), "b".into()]));
        assert_eq!(broken.into_result().unwrap_err().to_string(), "stage 1: a; stage 1: b");
    }
}
