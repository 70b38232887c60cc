//! What all operators have in common, and how candle's tape gets to know them.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Storage, Tensor, bail};

/// A function of tensors with a gradient.
pub(crate) trait Operator: Send + Sync {
    /// A name for error messages.
    fn name(&self) -> &'static str;

    /// The output for the given inputs.
    fn forward(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)>;

    /// For each input its gradient, given that of the output; inputs that are not wanted may get none.
    fn backward(&self, inputs: &[&Tensor], g: &Tensor, wanted: &[bool]) -> Result<Vec<Option<Tensor>>>;
}

/// Runs an operator without candle's tape, on any number of inputs.
pub(crate) fn compute(op: &dyn Operator, inputs: &[&Tensor]) -> Result<Tensor> {
    let guards: Vec<_> = inputs.iter().map(|input| input.storage_and_layout()).collect();
    let views = guards.iter().map(|(guard, layout)| match &**guard {
        Storage::Cpu(cpu) => Ok((cpu, *layout)),
        _ => bail!("{}: an input is not on the CPU", op.name()),
    });
    let (storage, shape) = op.forward(&views.collect::<Result<Vec<_>>>()?)?;
    match storage {
        CpuStorage::F32(data) => Tensor::from_vec(data, shape, &Device::Cpu),
        CpuStorage::F64(data) => Tensor::from_vec(data, shape, &Device::Cpu),
        _ => bail!("{}: an output that is neither f32 nor f64", op.name()),
    }
}

/// Runs an operator on candle's tape, on at most three inputs.
pub(super) fn apply(op: impl Operator + 'static, inputs: &[&Tensor]) -> Result<Tensor> {
    match *inputs {
        [x] => x.apply_op1(Taped(op)),
        [x, y] => x.apply_op2(y, Taped(op)),
        [x, y, z] => x.apply_op3(y, z, Taped(op)),
        _ => bail!("{}: {} inputs; candle's tape takes 1 to 3", op.name(), inputs.len()),
    }
}

/// An operator as candle wants it.
struct Taped<O>(O);

impl<O: Operator> Taped<O> {
    fn gradients<const N: usize>(&self, inputs: [&Tensor; N], g: &Tensor) -> Result<[Option<Tensor>; N]> {
        let gradients = self.0.backward(&inputs, g, &inputs.map(Tensor::track_op))?;
        gradients
            .try_into()
            .map_err(|_| candle_core::Error::msg(format!("{}: not one gradient per input", self.0.name())))
    }
}

impl<O: Operator> CustomOp1 for Taped<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.forward(&[(x, lx)])
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let [dx] = self.gradients([x], g)?;
        Ok(dx)
    }
}

impl<O: Operator> CustomOp2 for Taped<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, y: &CpuStorage, ly: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.forward(&[(x, lx), (y, ly)])
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok(self.gradients([x, y], g)?.into())
    }
}

impl<O: Operator> CustomOp3 for Taped<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        y: &CpuStorage,
        ly: &Layout,
        z: &CpuStorage,
        lz: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.0.forward(&[(x, lx), (y, ly), (z, lz)])
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        z: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok(self.gradients([x, y, z], g)?.into())
    }
}
