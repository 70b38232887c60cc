//! A whole network as one operation on candle's tape.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp2, DType, Layout as Strides, Result, Shape, Tensor, Var, bail};
use gram_ir::{Network, Weights};

use crate::engine::Engine;
use crate::ops::{dense, values};
use crate::{Layout, Model, TrainError};

/// A network whose forward and backward passes in training mode are one operation on candle's tape.
///
/// Its tensors are candle [`Var`]s and its output is a tensor like any other, so that losses, optimisers and further layers of candle work
/// around it, while the inside runs on the [`Engine`]. Networks in one operation take the memory of one: what a forward pass keeps for its
/// gradient is overwritten by the next one, whose output must therefore not be made before the gradient of the first was taken.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use gram_ir::{Network, Op, Shape};
/// use gram_train::NetworkOp;
///
/// let mut network = Network::new(Shape::chw(1, 2, 2));
/// let pool = network.add("pool", Op::GlobalAvgPool, &[network.input()])?;
/// let fc = network.add("fc", Op::Linear { c_in: 1, c_out: 2, bias: true }, &[pool])?;
/// network.set_output(fc)?;
/// let op = NetworkOp::new(&network, 1)?;
/// let images = Tensor::ones((3, 1, 2, 2), DType::F32, &Device::Cpu)?;
/// let loss = op.forward(&images)?.sqr()?.sum_all()?;
/// let gradients = loss.backward()?;
/// assert_eq!(gradients.get(op.var("fc.weight").unwrap()).unwrap().dims(), [2, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NetworkOp {
    network: Network,
    layout: Layout,
    vars: Vec<Var>,
    run: Arc<Mutex<Run>>,
}

#[derive(Debug)]
struct Run {
    engine: Engine,
    /// Forward passes so far; the gradient is that of the last one.
    n_passes: u64,
}

impl NetworkOp {
    /// A network with random f32 weights, those of [`Model::new`].
    ///
    /// # Errors
    /// [`TrainError::Tensor`] if candle refuses.
    pub fn new(network: &Network, seed: u64) -> std::result::Result<Self, TrainError> {
        let vars = Model::new(network, seed, DType::F32)?.vars().to_vec();
        let engine = Engine::new(network, None, true);
        let layout = engine.layout().clone();
        Ok(Self { network: network.clone(), layout, vars, run: Arc::new(Mutex::new(Run { engine, n_passes: 0 })) })
    }

    /// The tensors, in the order of [`Network::tensors`]; running statistics are among them and get no gradient.
    pub fn vars(&self) -> &[Var] {
        &self.vars
    }

    /// The tensor of that name.
    pub fn var(&self, name: &str) -> Option<&Var> {
        self.layout.specs.iter().position(|spec| spec.name == name).map(|i| &self.vars[i])
    }

    /// The network's output `[n, c', h', w']` for images `[n, c, h, w]`, on the tape, in training mode: running statistics move.
    ///
    /// # Errors
    /// If the images have another shape or type than f32 on the CPU.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let flat: Vec<Tensor> = self.vars.iter().map(|var| var.flatten_all()).collect::<Result<_>>()?;
        let flat = Tensor::cat(&flat, 0)?;
        let output = images.apply_op2(
            &flat,
            Pass { run: Arc::clone(&self.run), network: self.network.clone(), number: Mutex::new(0) },
        )?;
        let run = lock(&self.run);
        for ((spec, range), var) in self.layout.specs.iter().zip(&self.layout.ranges).zip(&self.vars) {
            if !spec.role.is_trainable() {
                let now = &run.engine.values()[range.clone()];
                crate::edit::edit(var, |running| running.copy_from_slice(now))?;
            }
        }
        Ok(output)
    }

    /// The present tensors, exact.
    ///
    /// # Errors
    /// [`TrainError::Tensor`] if they cannot be read.
    pub fn weights(&self) -> std::result::Result<Weights, TrainError> {
        let mut flat = Vec::with_capacity(self.layout.elements());
        for var in &self.vars {
            flat.extend_from_slice(&values::<f32>(var)?);
        }
        self.layout.weights(&flat)
    }
}

/// The engine holds no state that a panic could break: every pass writes all that it reads.
fn lock(run: &Mutex<Run>) -> MutexGuard<'_, Run> {
    run.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One forward pass and its gradient.
struct Pass {
    run: Arc<Mutex<Run>>,
    network: Network,
    /// Number of the forward pass.
    number: Mutex<u64>,
}

impl CustomOp2 for Pass {
    fn name(&self) -> &'static str {
        "network"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Strides,
        flat: &CpuStorage,
        l_flat: &Strides,
    ) -> Result<(CpuStorage, Shape)> {
        let input = self.network.input_shape();
        let &[n, c, h, w] = lx.dims() else { bail!("network: images of shape {:?}", lx.dims()) };
        if (c, h, w) != (input.c, input.h, input.w) || n == 0 {
            bail!("network: images of shape {:?} instead of [n, {}, {}, {}]", lx.dims(), input.c, input.h, input.w);
        }
        let (images, values) = (dense::<f32>(x, lx)?, dense::<f32>(flat, l_flat)?);
        let mut run = lock(&self.run);
        run.engine.values_mut().copy_from_slice(&values);
        let output = run.engine.forward(&images, n);
        run.n_passes += 1;
        *self.number.lock().unwrap_or_else(PoisonError::into_inner) = run.n_passes;
        let shape = self.network.output_shape();
        Ok((CpuStorage::F32(output), Shape::from((n, shape.c, shape.h, shape.w))))
    }

    fn bwd(&self, x: &Tensor, flat: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut run = lock(&self.run);
        if run.n_passes != *self.number.lock().unwrap_or_else(PoisonError::into_inner) {
            bail!("network: another forward pass came between this one and its gradient; use a NetworkOp for each");
        }
        run.engine.backward(&values::<f32>(g)?);
        let of_images = run.engine.input_gradient().map(|g| Tensor::from_vec(g, x.shape(), x.device())).transpose()?;
        let of_tensors = Tensor::from_slice(run.engine.gradient(), flat.shape(), flat.device())?;
        Ok((of_images, Some(of_tensors)))
    }
}
