//! Part of GRAM.
