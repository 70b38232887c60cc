//! What a forward pass leaves behind for its gradient.
//!
//! candle has a tape of its own, but gradients of several of its operators are wrong or slow, it recurses through the network, and it starts
//! each gradient with zeros to add to.

use candle_core::{Result, Tensor};

use crate::program::{Program, Step};

/// What the gradient of one operator needs.
pub(super) trait Saved {
    /// Gradients, given the output's gradient `g`. Unless they are `wanted`, those of inputs may be left out.
    fn backward(&self, g: &Tensor, wanted: bool) -> Result<Back>;
}

/// Gradients of the inputs and of the parameters of an operator.
pub(super) struct Back {
    pub(super) inputs: Vec<Option<Tensor>>,
    pub(super) params: Vec<Tensor>,
}

impl Back {
    /// That of the only input.
    pub(super) fn of_input(gradient: Tensor) -> Self {
        Self { inputs: vec![Some(gradient)], params: Vec::new() }
    }
}

/// One operator behind another.
pub(super) struct Then<A, B>(pub(super) A, pub(super) B);

impl<A: Saved, B: Saved> Saved for Then<A, B> {
    fn backward(&self, g: &Tensor, wanted: bool) -> Result<Back> {
        let Back { mut inputs, params: behind } = self.1.backward(g, true)?;
        let g = inputs.pop().flatten().ok_or_else(|| candle_core::Error::msg("invariant: it has one input"))?;
        let mut back = self.0.backward(&g, wanted)?;
        back.params.extend(behind);
        Ok(back)
    }
}

/// The operators of one forward pass, in execution order.
pub(super) struct Tape<'p> {
    program: &'p Program,
    records: Vec<Record>,
}

struct Record {
    saved: Box<dyn Saved>,
    slots: Vec<usize>,
    params: Vec<usize>,
    output: usize,
}

impl<'p> Tape<'p> {
    pub(super) fn new(program: &'p Program) -> Self {
        Self { program, records: Vec::with_capacity(program.steps.len()) }
    }

    /// Keeps what the gradient of `step` needs; forgets steps that no gradient goes through.
    pub(super) fn record(&mut self, step: &Step, saved: Box<dyn Saved>, params: Vec<usize>) {
        if self.program.trainable[step.output] {
            self.records.push(Record { saved, slots: step.inputs.clone(), params, output: step.output });
        }
    }

    /// The gradient of each of `n_params` tensors, given that of the output. What was kept is freed on the way.
    pub(super) fn backward(mut self, g: Tensor, n_params: usize) -> Result<Vec<Option<Tensor>>> {
        let mut slots: Vec<Option<Tensor>> = vec![None; self.program.n_slots];
        let mut params: Vec<Option<Tensor>> = vec![None; n_params];
        slots[self.program.output] = Some(g);
        while let Some(Record { saved, slots: from, params: of, output }) = self.records.pop() {
            let Some(g) = slots[output].take() else { continue };
            let wanted = from.iter().any(|&slot| self.program.trainable[slot]);
            let back = saved.backward(&g, wanted)?;
            for (slot, gradient) in from.into_iter().zip(back.inputs) {
                if self.program.trainable[slot] {
                    accumulate(&mut slots[slot], gradient)?;
                }
            }
            for (param, gradient) in of.into_iter().zip(back.params) {
                accumulate(&mut params[param], Some(gradient))?;
            }
        }
        Ok(params)
    }
}

fn accumulate(total: &mut Option<Tensor>, gradient: Option<Tensor>) -> Result<()> {
    *total = match (total.take(), gradient) {
        (Some(total), Some(gradient)) => Some((total + gradient)?),
        (total, gradient) => total.or(gradient),
    };
    Ok(())
}
