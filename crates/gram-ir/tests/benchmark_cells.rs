//! Invariants of the networks of tabular benchmarks' cells.
//!
//! - I1 well-formed: `verify` finds nothing
//! - I2 same input and output shapes for every cell
//! - I8 `parse(print(cell)) == cell`

use gram_ir::{NasBench101Cell, NasBench101Error, NasBench101Op, NasBench201Cell, NasBench201Op, Shape, Verify};
use proptest::prelude::*;
use proptest::sample::select;

const INPUT: Shape = Shape::chw(3, 8, 8);

/// Matrices and operators with and without unused vertices, too many edges, or no path at all.
fn arb_nasbench101() -> impl Strategy<Value = (Vec<Vec<bool>>, Vec<NasBench101Op>)> {
    (2..=7usize).prop_flat_map(|n| {
        let bits = proptest::collection::vec(proptest::bool::weighted(0.45), n * n);
        let matrix = bits.prop_map(move |bits| {
            (0..n).map(|from| (0..n).map(|to| from < to && bits[from * n + to]).collect()).collect()
        });
        (matrix, proptest::collection::vec(select(NasBench101Op::ALL.to_vec()), n - 2))
    })
}

proptest! {
    #[test]
    fn nasbench101_cells((matrix, ops) in arb_nasbench101()) {
        let cell = match NasBench101Cell::new(&matrix, &ops) {
            Ok(cell) => cell,
            Err(error) => {
                let expected = matches!(error, NasBench101Error::Disconnected | NasBench101Error::Edges { .. });
                return if expected { Ok(()) } else { Err(TestCaseError::fail(error.to_string())) };
            }
        };
        prop_assert_eq!(cell.to_string().parse::<NasBench101Cell>().unwrap(), cell.clone());     // I8
        let network = cell.network(INPUT, 10).unwrap();
        prop_assert_eq!(network.verify(), Ok(()));                                               // I1
        prop_assert_eq!((network.input_shape(), network.output_shape()), (INPUT, Shape::chw(10, 1, 1))); // I2
        // Every vertex lies on a path from input to output, so nothing is computed in vain.
        let consumers = network.consumers();
        prop_assert!(network.iter().all(|(id, _)| id == network.output() || !consumers[id.index()].is_empty()));
    }

    #[test]
    fn nasbench201_cells(ops in proptest::array::uniform6(select(NasBench201Op::ALL.to_vec()))) {
        let cell = NasBench201Cell { ops };
        prop_assert_eq!(cell.to_string().parse::<NasBench201Cell>().unwrap(), cell);             // I8
        let network = cell.network(INPUT, 10).unwrap();
        prop_assert_eq!(network.verify(), Ok(()));                                               // I1
        prop_assert_eq!((network.input_shape(), network.output_shape()), (INPUT, Shape::chw(10, 1, 1))); // I2
        // Stem, reductions, last norm and classifier, and for each convolution 15 copies with 16, 32 and 64 channels.
        let kernels = ops.iter().map(|op| match op {
            NasBench201Op::Conv1x1 => 1,
            NasBench201Op::Conv3x3 => 9,
            _ => 0,
        });
        let weights = |channels: u64, taps: u64| if taps == 0 { 0 } else { taps * channels * channels + 2 * channels };
        let searched: u64 = kernels.map(|taps| [16, 32, 64].map(|channels| 5 * weights(channels, taps)).iter().sum::<u64>()).sum();
        prop_assert_eq!(network.params().0, 73_306 + searched);
    }
}
