//! End-to-end and command-line tests of GRAM.
