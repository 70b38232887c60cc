//! Slices whose bounds are checked once per image instead of at every access.

use std::marker::PhantomData;

use crate::isa::{Element, Isa, LANES};

/// A slice that is read.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a, E> {
    start: *const E,
    len: usize,
    slice: PhantomData<&'a [E]>,
}

impl<'a, E: Element> Source<'a, E> {
    #[inline(always)]
    pub(crate) fn new(slice: &'a [E]) -> Self {
        Self { start: slice.as_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// Lanes from element `i` on.
    ///
    /// # Safety
    /// `i + LANES` must not be above the slice's length.
    #[inline(always)]
    pub(crate) unsafe fn lanes<S: Isa<E = E>>(self, s: S, i: usize) -> S::V {
        debug_assert!(i + LANES <= self.len, "lanes at {i} of {}", self.len);
        // SAFETY: the caller keeps the lanes inside the slice.
        unsafe { s.load(self.start.add(i)) }
    }

    /// Asks for element `i`, which may lie behind the slice.
    #[inline(always)]
    pub(crate) fn prefetch<S: Isa<E = E>>(self, s: S, i: usize) {
        s.prefetch(self.start.wrapping_add(i));
    }

    /// Element `i`.
    ///
    /// # Safety
    /// `i` must be below the slice's length.
    #[inline(always)]
    pub(crate) unsafe fn one(self, i: usize) -> E {
        debug_assert!(i < self.len, "element {i} of {}", self.len);
        // SAFETY: the caller keeps the element inside the slice.
        unsafe { *self.start.add(i) }
    }
}

/// A slice that is read and written.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a, E> {
    start: *mut E,
    len: usize,
    slice: PhantomData<&'a mut [E]>,
}

impl<'a, E: Element> Target<'a, E> {
    #[inline(always)]
    pub(crate) fn new(slice: &'a mut [E]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// Lanes from element `i` on.
    ///
    /// # Safety
    /// `i + LANES` must not be above the slice's length.
    #[inline(always)]
    pub(crate) unsafe fn lanes<S: Isa<E = E>>(self, s: S, i: usize) -> S::V {
        debug_assert!(i + LANES <= self.len, "lanes at {i} of {}", self.len);
        // SAFETY: the caller keeps the lanes inside the slice, which this value borrows alone.
        unsafe { s.load(self.start.add(i)) }
    }

    /// Writes lanes from element `i` on.
    ///
    /// # Safety
    /// `i + LANES` must not be above the slice's length.
    #[inline(always)]
    pub(crate) unsafe fn put<S: Isa<E = E>>(self, s: S, i: usize, v: S::V) {
        debug_assert!(i + LANES <= self.len, "lanes at {i} of {}", self.len);
        // SAFETY: the caller keeps the lanes inside the slice, which this value borrows alone.
        unsafe { s.store(self.start.add(i), v) }
    }
}
