//! Decisions, points and the identity of what they compute.

/// A categorical decision of a domain: the operator on an edge, or whether an edge is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    name: String,
    n_values: u8,
}

impl Decision {
    /// A decision between `n_values` values, at least one.
    pub fn new(name: impl Into<String>, n_values: u8) -> Self {
        Self { name: name.into(), n_values: n_values.max(1) }
    }

    /// The name, for reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Values are `0..n_values`.
    pub fn n_values(&self) -> u8 {
        self.n_values
    }
}

/// A value for every decision of a domain, in the order of [`Domain::decisions`](super::Domain::decisions).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point(Box<[u8]>);

impl Point {
    /// The values.
    pub fn values(&self) -> &[u8] {
        &self.0
    }

    /// The point that differs in one decision.
    ///
    /// # Panics
    /// If there is no such decision.
    pub fn with(&self, decision: usize, value: u8) -> Self {
        let mut edited = self.clone();
        edited.0[decision] = value;
        edited
    }

    /// Exchanges the values of two decisions.
    ///
    /// # Panics
    /// If there is no such decision.
    pub fn swap(&mut self, a: usize, b: usize) {
        self.0.swap(a, b);
    }
}

impl From<Vec<u8>> for Point {
    fn from(values: Vec<u8>) -> Self {
        Self(values.into_boxed_slice())
    }
}

impl<const N: usize> From<[u8; N]> for Point {
    fn from(values: [u8; N]) -> Self {
        Self(Box::new(values))
    }
}

/// Identity of a class of points that compute the same function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassKey(u128);

impl ClassKey {
    /// A key that the domain numbers itself.
    pub const fn new(key: u128) -> Self {
        Self(key)
    }

    /// The first 128 bits of the BLAKE3 hash of a canonical form.
    pub fn of_bytes(canonical: &[u8]) -> Self {
        let [first, second, ..] = *blake3::hash(canonical).as_bytes().as_chunks::<16>().0 else {
            return Self(0); // a BLAKE3 hash has two such chunks
        };
        Self(u128::from_le_bytes(first) ^ u128::from_le_bytes(second))
    }
}

/// Counts of what occurs in a function, sorted by the name (a hash) of what is counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram(Vec<(u64, f64)>);

impl Histogram {
    /// Sorted counts, each name once.
    pub fn counts(&self) -> &[(u64, f64)] {
        &self.0
    }

    /// `Σ a·b` over the names that both have.
    pub fn dot(&self, other: &Self) -> f64 {
        let (mut sum, mut rest) = (0.0, other.0.as_slice());
        for &(name, count) in &self.0 {
            while let [(first, _), tail @ ..] = rest
                && *first < name
            {
                rest = tail;
            }
            if let [(first, theirs), ..] = rest
                && *first == name
            {
                sum += count * theirs;
            }
        }
        sum
    }
}

impl FromIterator<(u64, f64)> for Histogram {
    /// Counts of equal names are added.
    fn from_iter<I: IntoIterator<Item = (u64, f64)>>(counts: I) -> Self {
        let mut sums = std::collections::BTreeMap::new();
        for (name, count) in counts {
            *sums.entry(name).or_insert(0.0) += count;
        }
        Self(sums.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_add_equal_names_and_multiply_common_ones() {
        let a: Histogram = [(7, 1.0), (3, 2.0), (7, 1.0)].into_iter().collect();
        let b: Histogram = [(1, 5.0), (7, 3.0), (9, 1.0)].into_iter().collect();
        assert_eq!(a.counts(), [(3, 2.0), (7, 2.0)]);
        assert_eq!((a.dot(&b), b.dot(&a), a.dot(&a)), (6.0, 6.0, 8.0));
        assert_eq!(a.dot(&Histogram::default()), 0.0);
    }

    #[test]
    fn keys_of_different_forms_differ() {
        assert_ne!(ClassKey::of_bytes(b"a"), ClassKey::of_bytes(b"b"));
        assert_eq!(ClassKey::of_bytes(b"a"), ClassKey::of_bytes(b"a"));
    }
}
