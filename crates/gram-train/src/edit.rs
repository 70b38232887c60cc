//! Reading and changing the elements of variables in place.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Var, bail};

/// Lets `f` change the elements of an f32 variable, without a new allocation.
///
/// Tensors that were computed from the variable keep their values; their gradients must not be asked for any more.
pub(crate) fn edit(var: &Var, f: impl FnOnce(&mut [f32])) -> Result<()> {
    var.inplace_op1(&Edit(RefCell::new(Some(f))))
}

struct Edit<F>(RefCell<Option<F>>);

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Edit<F> {
    fn name(&self) -> &'static str {
        "edit"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(data), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("only dense f32 variables can be changed in place");
        };
        if let Some(f) = self.0.take() {
            f(&mut data[start..end]);
        }
        Ok(())
    }
}
