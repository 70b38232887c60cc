//! Labelled image data sets: readers, splits, proxy subsets, augmentation, batches and digests.
//!
//! Start at [`open`]: it takes a folder, or the name `optdigits` for the digits that are built in, and tells from what
//! lies there how to read it. [`split`] draws validation (and, where there is none, test) images, [`proxy_subset`] cuts
//! the training images down for a quick look, [`Normalisation::of`] measures them, and [`Batches`] hands them out.
//! [`describe`] says what is in a data set and [`load_image`] reads one picture for a trained model.
//!
//! Bad files end in a [`DataError`] of one line; no byte of a file is believed before it was checked against what is
//! really there. All draws are ChaCha streams of a seed and a purpose, so nothing depends on threads or arrival.
//!
//! This crate knows nothing about networks and tensors, fetches nothing and prints nothing.
//!
//! ```
//! use gram_data::{Augmentation, Batches, LoadOptions, Normalisation, SplitConfig};
//!
//! let digits = gram_data::open("optdigits", &LoadOptions::default())?;
//! let splits = gram_data::split(&digits, &SplitConfig { validation_per_class: Some(20), ..Default::default() })?;
//! assert_eq!(splits.validation.counts(10), [20; 10]);
//!
//! let proxy = gram_data::proxy_subset(&splits.train, 50, 7);
//! let norm = Normalisation::of(&splits.train);
//! let augmentation = Augmentation { pad: 1, cutout: 3, ..Augmentation::default() };
//! for batch in Batches::train(&proxy, &norm, augmentation, 64, 7, 0)? {
//!     assert_eq!(batch.pixels.len(), batch.n * 64); // [n, 1, 8, 8]
//! }
//! # Ok::<(), gram_data::DataError>(())
//! ```

mod augment;
mod batches;
mod cifar;
mod dataset;
mod decode;
mod describe;
mod error;
mod folder;
mod idx;
mod images;
mod listing;
mod names;
mod normalise;
mod optdigits;
mod seeds;
mod source;
mod split;

pub use augment::{Augmentation, blacked_out, shifted};
pub use batches::{Batch, Batches};
pub use dataset::{Dataset, Format, LoadOptions, SHIPPED_NAME, SizeRange, open};
pub use decode::load_image;
pub use describe::{ClassInfo, Info, describe};
pub use error::DataError;
pub use images::{ImageSet, ImageShape};
pub use normalise::Normalisation;
pub use split::{SplitConfig, SplitIndices, Splits, proxy_subset, split, split_indices};
