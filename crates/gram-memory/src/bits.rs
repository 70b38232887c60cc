//! Sets of the steps of one part, as bits.

use std::hash::{Hash, Hasher};

/// A set of numbers below `64·N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bits<const N: usize>([u64; N]);

impl<const N: usize> Bits<N> {
    pub(crate) const EMPTY: Self = Self([0; N]);

    pub(crate) fn from_members(members: impl IntoIterator<Item = usize>) -> Self {
        members.into_iter().fold(Self::EMPTY, |set, member| set.with(member))
    }

    pub(crate) fn contains(self, member: usize) -> bool {
        self.0[member / 64] >> (member % 64) & 1 == 1
    }

    pub(crate) fn with(mut self, member: usize) -> Self {
        self.0[member / 64] |= 1 << (member % 64);
        self
    }

    pub(crate) fn without(mut self, member: usize) -> Self {
        self.0[member / 64] &= !(1 << (member % 64));
        self
    }

    pub(crate) fn or(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
        self
    }

    pub(crate) fn meets(self, other: Self) -> bool {
        self.0.iter().zip(other.0).any(|(word, other)| word & other != 0)
    }

    pub(crate) fn is_within(self, other: Self) -> bool {
        self.0.iter().zip(other.0).all(|(word, other)| word & !other == 0)
    }

    /// Members in ascending order.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(i, mut word)| {
            std::iter::from_fn(move || {
                (word != 0).then(|| {
                    let bit = word.trailing_zeros() as usize;
                    word &= word - 1;
                    64 * i + bit
                })
            })
        })
    }
}

impl<const N: usize> Hash for Bits<N> {
    /// Word by word, without the length that a derived hash of an array adds.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.iter().for_each(|&word| state.write_u64(word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_two_words() {
        let set = Bits::<2>::from_members([100, 3, 63, 64]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 63, 64, 100]);
        assert_eq!(set.without(64).iter().collect::<Vec<_>>(), [3, 63, 100]);
        assert!(set.without(3).is_within(set) && !set.is_within(set.without(3)));
        assert!(set.meets(Bits::EMPTY.with(100)) && !set.meets(Bits::EMPTY.with(99)));
        assert_eq!(Bits::<2>::EMPTY.with(3).or(Bits::EMPTY.with(64)).iter().count(), 2);
    }
}
