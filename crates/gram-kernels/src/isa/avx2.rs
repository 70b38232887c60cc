//! AVX2 with FMA.

use std::arch::x86_64::*;

use super::Isa;

/// Proof that this machine has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The proof, where there is one.
    pub fn detect() -> Option<Self> {
        Self::detect_static().copied()
    }

    /// As [`detect`](Self::detect), for ever.
    pub(crate) fn detect_static() -> Option<&'static Self> {
        static PROOF: Avx2 = Avx2(());
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(&PROOF)
    }
}

/// Lanes 0–7 and 8–15.
type Halves = [__m256; 2];

// SAFETY of all blocks below: a value of `Avx2` exists only where `detect` has found the instructions; what else loads and stores ask for,
// their callers grant: both halves lie within the LANES elements.
impl Isa for Avx2 {
    type E = f32;
    type V = Halves;

    const WIDE: bool = false;

    #[inline(always)]
    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma")]
        fn with_features<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        // SAFETY: see above.
        unsafe { with_features(f) }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Halves {
        // SAFETY: see above.
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, [low, high]: Halves) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(p, low);
            _mm256_storeu_ps(p.add(8), high);
        }
    }

    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: prefetching never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Halves {
        // SAFETY: see above.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn add(self, a: Halves, b: Halves) -> Halves {
        // SAFETY: see above.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn sub(self, a: Halves, b: Halves) -> Halves {
        // SAFETY: see above.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul(self, a: Halves, b: Halves) -> Halves {
        // SAFETY: see above.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn fma(self, a: Halves, b: Halves, c: Halves) -> Halves {
        // SAFETY: see above.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn max(self, a: Halves, b: Halves) -> Halves {
        // SAFETY: see above.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn min(self, a: Halves, b: Halves) -> Halves {
        // SAFETY: see above.
        unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn select_gt(self, a: Halves, b: Halves, x: Halves, y: Halves) -> Halves {
        let half = |i: usize| {
            // SAFETY: see above.
            unsafe { _mm256_blendv_ps(y[i], x[i], _mm256_cmp_ps::<_CMP_GT_OQ>(a[i], b[i])) }
        };
        [half(0), half(1)]
    }
}
