//! A teacher on a device.

use candle_core::{DType, Device, Tensor};
use gram_data::Normalisation;
use gram_ir::Network;

use super::model::DeviceModel;
use crate::{Distillation, Teacher, TrainError};

/// A trained network whose scores another one is held against, without leaving the device.
#[derive(Debug)]
pub(super) struct DeviceTeacher {
    model: DeviceModel,
    /// A factor and a summand per channel, `[1, c, 1, 1]`, that make pixels its own.
    conversion: Option<[Tensor; 2]>,
    pub(super) distillation: Distillation,
}

/// What a teacher says of a batch, on the device.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// `[n, classes]`.
    pub(super) logits: Tensor,
    pub(super) distillation: Distillation,
}

impl DeviceTeacher {
    /// For images that are normalised as `from` says.
    pub(super) fn new(
        teacher: &Teacher<'_>,
        network: &Network,
        from: &Normalisation,
        (distillation, device): (Distillation, &Device),
    ) -> Result<Self, TrainError> {
        teacher.check(network)?;
        let tensor = |figures: Vec<f32>| Tensor::from_vec(figures, (1, network.input_shape().c, 1, 1), device);
        let conversion = teacher.conversion(from).map(|channels| {
            let part = |i: usize| tensor(channels.iter().map(|channel| channel[i]).collect());
            Ok::<_, TrainError>([part(0)?, part(1)?])
        });
        let model = DeviceModel::new(teacher.network, teacher.weights, DType::F32, device)?;
        Ok(Self { model, conversion: conversion.transpose()?, distillation })
    }

    /// Its scores of images `[n, c, h, w]` as the one that learns sees them.
    pub(super) fn say(&self, images: &Tensor) -> Result<Said, TrainError> {
        let logits = match &self.conversion {
            None => self.model.evaluate(images)?,
            Some([factor, summand]) => self.model.evaluate(&images.broadcast_mul(factor)?.broadcast_add(summand)?)?,
        };
        Ok(Said { logits: logits.flatten_from(1)?, distillation: self.distillation })
    }
}
