//! Dense slices of candle tensors and storages.

use std::borrow::Cow;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, Tensor, bail};

use crate::kernels::Real;

/// Calls a generic expression for the element type of a storage or tensor; other types than f32 and f64 are refused.
macro_rules! by_dtype {
    ($dtype:expr, $op:expr, $t:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $t = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $t = f64;
                $body
            }
            other => candle_core::bail!("{} works on f32 and f64, got {other:?}", $op),
        }
    };
}
pub(super) use by_dtype;

/// The elements of a storage under a layout, copied only if they do not lie densely.
pub(crate) fn dense<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<Cow<'a, [T]>> {
    let data = T::cpu_storage_as_slice(storage)?;
    Ok(match layout.contiguous_offsets() {
        Some((start, end)) => Cow::Borrowed(&data[start..end]),
        None => Cow::Owned(gathered(data, layout)),
    })
}

/// The elements of a strided layout in row-major order.
fn gathered<T: Real>(data: &[T], layout: &Layout) -> Vec<T> {
    let mut offsets = vec![layout.start_offset()];
    for (&size, &stride) in layout.dims().iter().zip(layout.stride()) {
        offsets = offsets.iter().flat_map(|offset| (0..size).map(move |i| offset + i * stride)).collect();
    }
    offsets.into_iter().map(|offset| data[offset]).collect()
}

/// What an operator's `cpu_fwd` returns.
pub(super) fn storage<T: Real>(data: Vec<T>, shape: impl Into<Shape>) -> (CpuStorage, Shape) {
    (T::to_cpu_storage_owned(data), shape.into())
}

/// A new tensor on the CPU.
pub(super) fn tensor<T: Real>(data: Vec<T>, shape: &Shape) -> Result<Tensor> {
    Tensor::from_vec(data, shape, &Device::Cpu)
}

/// The dense elements of a tensor, copied only if they do not lie densely.
pub(crate) fn values<T: Real>(tensor: &Tensor) -> Result<Values<T, impl Deref<Target = Storage> + '_>> {
    let (guard, layout) = tensor.storage_and_layout();
    let Storage::Cpu(cpu) = &*guard else { bail!("the tensor is not on the CPU") };
    let data = T::cpu_storage_as_slice(cpu)?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(Values::Held { guard, range: start..end }),
        None => Ok(Values::Copied(gathered(data, layout))),
    }
}

/// Dense elements of a tensor; see [`values`].
pub(crate) enum Values<T, G> {
    /// They lie densely in the tensor's storage.
    Held {
        /// Keeps the storage from being written to.
        guard: G,
        /// Where they lie.
        range: Range<usize>,
    },
    /// They were copied.
    Copied(Vec<T>),
}

impl<T: Real, G: Deref<Target = Storage>> Deref for Values<T, G> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Held { guard, range } => match &**guard {
                Storage::Cpu(cpu) => {
                    &T::cpu_storage_as_slice(cpu).expect("invariant: checked when it was made")[range.clone()]
                }
                _ => unreachable!("invariant: checked when it was made"),
            },
            Self::Copied(data) => data,
        }
    }
}
