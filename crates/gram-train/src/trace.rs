//! What a forward pass leaves behind for its gradient.
//!
//! candle's own tape would do, but it starts every gradient with a tensor of zeros and adds on a process-wide pool of spinning threads,
//! which costs half of the time of small networks and all of the gain of running several trainings at once.

use candle_core::{Result, Tensor};

use crate::ops::{AddOp, Operator, compute};
use crate::program::{Program, Step};

/// The operators of one forward pass with their inputs, in execution order.
pub(crate) struct Trace<'a> {
    program: &'a Program,
    records: Vec<Record>,
}

struct Record {
    op: Box<dyn Operator>,
    /// Those from slots, then those that are tensors of the model.
    inputs: Vec<Tensor>,
    slots: Vec<usize>,
    params: Vec<usize>,
    output: usize,
}

impl<'a> Trace<'a> {
    pub(crate) fn new(program: &'a Program) -> Self {
        Self { program, records: Vec::with_capacity(program.steps.len()) }
    }

    /// Keeps what the gradient of `step` needs; forgets steps that no gradient goes through.
    pub(crate) fn record(&mut self, step: &Step, op: Box<dyn Operator>, inputs: Vec<Tensor>, params: &[usize]) {
        if self.program.trainable[step.output] {
            let (slots, params, output) = (step.inputs.clone(), params.to_vec(), step.output);
            self.records.push(Record { op, inputs, slots, params, output });
        }
    }

    /// The gradient of each of `n_params` tensors, given that of the output. Activations are freed on the way.
    pub(crate) fn backward(mut self, g: Tensor, n_params: usize) -> Result<Vec<Option<Tensor>>> {
        let mut slots: Vec<Vec<Tensor>> = vec![Vec::new(); self.program.n_slots];
        let mut params: Vec<Vec<Tensor>> = vec![Vec::new(); n_params];
        slots[self.program.output].push(g);
        while let Some(Record { op, inputs, slots: from, params: of, output }) = self.records.pop() {
            let Some(g) = total(std::mem::take(&mut slots[output]))? else { continue };
            let wanted: Vec<bool> =
                from.iter().map(|&slot| self.program.trainable[slot]).chain(of.iter().map(|_| true)).collect();
            let gradients = op.backward(&inputs.iter().collect::<Vec<_>>(), &g, &wanted)?;
            for (i, gradient) in gradients.into_iter().enumerate().filter(|&(i, _)| wanted[i]) {
                let target = if i < from.len() { &mut slots[from[i]] } else { &mut params[of[i - from.len()]] };
                target.extend(gradient);
            }
        }
        params.into_iter().map(total).collect()
    }
}

/// The sum of what several readers send back.
fn total(gradients: Vec<Tensor>) -> Result<Option<Tensor>> {
    match gradients.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        many => compute(&AddOp, &many.iter().collect::<Vec<_>>()).map(Some),
    }
}
