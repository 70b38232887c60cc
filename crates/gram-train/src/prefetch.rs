//! Batches that are prepared by a thread of their own while the ones before them are trained on.
//!
//! The thread shuffles, augments and normalises; it works across the borders of epochs, so that no epoch starts with a pause. Batches come
//! in the order, and with the bits, of the iterators that they are taken from.

use std::io;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use gram_data::DataError;

/// Batches that wait. One more is in the hands of the thread, so that two are ready when a step takes longer than their preparation.
const WAITING: usize = 1;

/// Batches that are in memory at the same time: the one that is trained on, those that wait, and the one in the hands of the thread.
pub(crate) const BATCHES_AT_ONCE: usize = WAITING + 2;

/// The batches of several epochs, one after the other. Dropping it stops the thread behind the batch that it works on.
pub(crate) struct Prefetch<'scope, B> {
    ready: Receiver<B>,
    /// None once its end has been seen.
    thread: Option<ScopedJoinHandle<'scope, Result<(), DataError>>>,
}

impl<'scope, B: Send + 'scope> Prefetch<'scope, B> {
    /// Starts to prepare the batches that `open` gives for each of `epochs`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start<I: Iterator<Item = B>>(
        scope: &'scope Scope<'scope, '_>,
        epochs: Range<u64>,
        open: impl FnMut(u64) -> Result<I, DataError> + Send + 'scope,
    ) -> io::Result<Self> {
        let (sender, ready) = sync_channel(WAITING);
        let thread =
            Builder::new().name("gram-batches".into()).spawn_scoped(scope, || prepare(sender, epochs, open))?;
        Ok(Self { ready, thread: Some(thread) })
    }

    /// The next batch; none behind the last one of the last epoch.
    ///
    /// # Errors
    /// What `open` has refused.
    /// # Panics
    /// If the thread has panicked: its panic goes on here.
    pub(crate) fn next(&mut self) -> Result<Option<B>, DataError> {
        if let Ok(batch) = self.ready.recv() {
            return Ok(Some(batch));
        }
        match self.thread.take().map(ScopedJoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(None),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panic)) => resume_unwind(panic),
        }
    }
}

fn prepare<I: Iterator>(
    sender: SyncSender<I::Item>,
    epochs: Range<u64>,
    mut open: impl FnMut(u64) -> Result<I, DataError>,
) -> Result<(), DataError> {
    for epoch in epochs {
        for batch in open(epoch)? {
            // Refused once nobody listens any more.
            if sender.send(batch).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use gram_data::{Augmentation, Batch, Batches, ImageSet, ImageShape, Normalisation};

    use super::*;

    fn images() -> ImageSet {
        let pixels = (0..23 * 48).map(|i| (i * 37 % 251) as u8).collect();
        ImageSet::new(ImageShape::new(3, 4, 4), pixels, (0..23).map(|i| i % 5).collect()).unwrap()
    }

    fn batch(label: usize) -> Batch {
        Batch { pixels: vec![0.5], labels: vec![label as u32], n: 1 }
    }

    #[test]
    fn batches_are_those_of_the_epochs_in_their_order() {
        let (set, augmentation) = (images(), Augmentation { pad: 1, flip: true, cutout: 2 });
        let norm = Normalisation::of(&set);
        let open = |epoch| Batches::train(&set, &norm, augmentation, 4, 9, epoch);
        let expected: Vec<Batch> = (2..5).flat_map(|epoch| open(epoch).unwrap()).collect();
        let got: Vec<Batch> = thread::scope(|scope| {
            let mut batches = Prefetch::start(scope, 2..5, open).unwrap();
            let got = std::iter::from_fn(|| batches.next().unwrap()).collect();
            assert_eq!(batches.next().unwrap(), None, "the end stays the end");
            got
        });
        assert_eq!(got, expected);
        assert_ne!(got[..6], got[6..12], "epochs differ");
    }

    #[test]
    fn two_batches_are_prepared_unasked_and_no_more() {
        let made = AtomicUsize::new(0);
        let endless = |_| {
            Ok((0..).map(|i| {
                made.fetch_add(1, Ordering::SeqCst);
                batch(i)
            }))
        };
        thread::scope(|scope| {
            let mut batches = Prefetch::start(scope, 0..1, endless).unwrap();
            for taken in 0..5 {
                while made.load(Ordering::SeqCst) < taken + WAITING + 1 {
                    thread::yield_now();
                }
                assert!(made.load(Ordering::SeqCst) <= taken + WAITING + 1);
                assert_eq!(batches.next().unwrap(), Some(batch(taken)));
            }
            // The scope ends only because dropping the batches in the middle of an endless epoch stops the thread.
        });
        assert!(made.into_inner() <= 5 + WAITING + 2);
    }

    #[test]
    fn a_panic_of_the_one_who_trains_stops_the_thread() {
        let panic = catch_unwind(|| {
            thread::scope(|scope| {
                let _batches = Prefetch::start(scope, 0..u64::MAX, |_| Ok([batch(1)].into_iter())).unwrap();
                panic!("in a step");
            })
        });
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"in a step"));
    }

    #[test]
    fn errors_and_panics_come_behind_the_batches_before_them() {
        let refused = || DataError::Setting { name: "pad", reason: "too large".into() };
        let open = |epoch| if epoch < 2 { Ok([batch(epoch as usize)].into_iter()) } else { Err(refused()) };
        thread::scope(|scope| {
            let mut batches = Prefetch::start(scope, 0..9, open).unwrap();
            assert_eq!([0, 1].map(|_| batches.next().unwrap()), [0, 1].map(|i| Some(batch(i))));
            assert_eq!(batches.next().unwrap_err().to_string(), refused().to_string());
            assert_eq!(batches.next().unwrap(), None);
        });
        let open = |_| Ok((0..9).map(|i| if i < 2 { batch(i) } else { panic!("image {i}") }));
        thread::scope(|scope| {
            let mut batches = Prefetch::start(scope, 0..1, open).unwrap();
            assert_eq!([0, 1].map(|_| batches.next().unwrap()), [0, 1].map(|i| Some(batch(i))));
            let panic = catch_unwind(AssertUnwindSafe(|| batches.next())).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"image 2".to_owned()));
        });
    }
}
