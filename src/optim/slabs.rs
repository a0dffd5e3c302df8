//! What all optimizers share: gradients gathered into slabs of the parameters' layout, the tables
//! that describe the slots to the kernels, and the optimizer's own state.

use super::{GradScaler, OptimizerOptions};
use crate::autograd::Gradients;
use crate::error::{Error, Result, require_not_negative};
use crate::gpu::{Pending, Scalar};
use crate::nn::parameters::resized;
use crate::nn::{Kind, ParameterSlot, Parameters, Role};
use crate::ops::optimizer::clip_each::ClipEach;
use crate::ops::optimizer::clip_norm::clip_norm;
use crate::ops::optimizer::segment_norms::SegmentNorms;
use crate::ops::optimizer::{BLOCK, Scalars, Segment, Slab, update};
use crate::ops::{Operator, apply, apply_one};
use crate::tensor::{DType, Tensor};

/// Sets of parameters with gradients whose tables are kept: the last ones used.
const KEPT: usize = 8;

/// One chunk of the parameters' values with all that belongs to it.
struct Chunk {
    gradients: Tensor,
    segments: Tensor,
    states: Vec<Tensor>,
    /// Indices into the slots, in the order of the table.
    slots: Vec<usize>,
}

/// The slabs of one optimizer.
pub(super) struct Slabs {
    params: Parameters,
    common: OptimizerOptions,
    /// Takes the place of the weight decay in `common`.
    decay: Option<Scalar>,
    scaler: Option<GradScaler>,
    state_names: &'static [&'static str],
    revision: u64,
    slots: Vec<ParameterSlot>,
    keys: Vec<usize>,
    chunks: Vec<Chunk>,
    /// A table a chunk, for each set of slots that a step changes. What was captured keeps the
    /// tables of its own set: they are never written again.
    tables: Vec<(Vec<bool>, Vec<Tensor>)>,
    scalars: Tensor,
    skipped: Tensor,
    /// What the last step's updates read: the norm of all gradients comes first.
    control: Option<Tensor>,
}

impl Slabs {
    pub(super) fn new(params: &Parameters, common: OptimizerOptions, state_names: &'static [&'static str]) -> Result<Self> {
        params.compact()?;
        let gpu = params.gpu();
        let mut slabs = Self {
            params: params.clone(),
            common,
            decay: None,
            scaler: None,
            state_names,
            revision: u64::MAX,
            slots: Vec::new(),
            keys: Vec::new(),
            chunks: Vec::new(),
            tables: Vec::new(),
            scalars: Tensor::zeros(gpu, [Scalars::LENGTH], DType::F32)?,
            skipped: Tensor::zeros(gpu, [1], DType::I32)?,
            control: None,
        };
        // All that training keeps is there before its first step, which so needs as much memory as
        // the others.
        slabs.refresh()?;
        slabs.tables_of(&vec![true; slabs.slots.len()])?;
        Ok(slabs)
    }

    pub(super) fn schedule_weight_decay(&mut self, decay: Scalar) -> Result<()> {
        require_not_negative("optimizer", "weight_decay", decay.get())?;
        self.decay = Some(decay);
        self.tables.clear();
        self.params.gpu().invalidate_programs();
        Ok(())
    }

    pub(super) fn scale_gradients(&mut self, scaler: &GradScaler) {
        self.scaler = Some(scaler.clone());
        self.params.gpu().invalidate_programs();
    }

    /// The numbers of the step about to be taken, the first of which is 1. Bias corrections are
    /// 1 - beta^t in float64, because f32 loses the difference at large t.
    fn scalars_of_step(&self, learning_rate: Scalar, betas: [f32; 2]) -> Scalars {
        let step = self.params.step_scalar().map(|before| before + 1);
        let correction = |beta: f32| step.map(move |step| (1.0 - f64::from(beta).powf(f64::from(step))) as f32);
        let [bias_correction1, bias_correction2] = betas.map(correction);
        let step = step.map(|step| step as f32);
        let OptimizerOptions { clip_norm: most, gradient_scale, .. } = self.common;
        Scalars {
            lr: learning_rate,
            bias_correction1,
            bias_correction2,
            max_norm: most.filter(|most| most.is_finite()).unwrap_or(0.0).into(),
            gradient_scale: gradient_scale.into(),
            weight_decay: self.decay.clone().unwrap_or_else(|| 1.0.into()),
            step,
            ..Scalars::default()
        }
    }

    pub(super) fn skipped_later(&self) -> Result<Pending<u64>> {
        let counted = self.skipped.to_vec_later::<i32>()?;
        Ok(counted.map(|counts| Ok(counts.into_iter().map(|v| u64::from(v.unsigned_abs())).sum())))
    }

    pub(super) fn gradient_norm(&self) -> Option<Tensor> {
        self.control.clone()
    }

    pub(super) fn state(&mut self) -> Result<Vec<(String, Tensor)>> {
        self.refresh()?;
        let named = |(index, chunk): (usize, &Chunk)| {
            let names = self.state_names.iter().zip(chunk.states.clone());
            names.map(move |(name, tensor)| (format!("{name}.{index}"), tensor)).collect::<Vec<_>>()
        };
        let scale = self.scaler.as_ref().map(|scaler| ("loss_scale".to_string(), scaler.state().clone()));
        let skipped = ("skipped".to_string(), self.skipped.clone());
        Ok(self.chunks.iter().enumerate().flat_map(named).chain([skipped]).chain(scale).collect())
    }

    /// Follows parameters that were added, frozen or regrouped since the last step.
    fn refresh(&mut self) -> Result<()> {
        if self.revision == self.params.revision() {
            return Ok(());
        }
        let gpu = self.params.gpu().clone();
        let parameters = self.params.all_in_home();
        self.slots = self.params.slots();
        self.keys = parameters.iter().map(|p| p.key().unwrap_or(0)).collect();
        self.tables.clear();
        let mut old = std::mem::take(&mut self.chunks).into_iter();
        for (index, values) in self.params.values().iter().enumerate() {
            let elements = values.numel();
            let inside = |s: &ParameterSlot| matches!(s.role, Role::Value(_)) && s.chunk == index;
            let slots: Vec<usize> = self.slots.iter().enumerate().filter(|(_, s)| inside(s)).map(|(i, _)| i).collect();
            // Blocks that hold no parameter belong to a last segment, which is never active.
            let unused = slots.len() as i32;
            let mut of_block = vec![unused; elements / BLOCK];
            for (segment, slot) in slots.iter().filter_map(|i| self.slots.get(*i)).enumerate() {
                let first = slot.start / BLOCK;
                let blocks = slot.shape.numel().div_ceil(BLOCK).max(1);
                of_block.iter_mut().skip(first).take(blocks).for_each(|b| *b = segment as i32);
            }
            let before = old.next();
            let state = |index| match before.as_ref().and_then(|c| c.states.get(index)) {
                Some(state) => resized(&gpu, state, elements),
                None => Tensor::zeros(&gpu, [elements], DType::F32),
            };
            let states = (0..self.state_names.len()).map(state).collect::<Result<Vec<_>>>()?;
            self.chunks.push(Chunk {
                gradients: Tensor::zeros(&gpu, [elements], DType::F32)?,
                segments: Tensor::from_slice(&gpu, &of_block, [of_block.len()])?,
                states,
                slots,
            });
        }
        self.revision = self.params.revision();
        Ok(())
    }

    /// The table of each chunk where the slots that are `present` have gradients.
    fn tables_of(&mut self, present: &[bool]) -> Result<Vec<Tensor>> {
        let active: Vec<bool> = present.iter().zip(&self.slots).map(|(present, slot)| *present && !slot.frozen).collect();
        if let Some(at) = self.tables.iter().position(|(known, _)| *known == active) {
            let known = self.tables.remove(at);
            let tables = known.1.clone();
            self.tables.push(known);
            return Ok(tables);
        }
        let table = |chunk: &Chunk| {
            let row = |index: &usize| {
                let (Some(slot), Some(active)) = (self.slots.get(*index), active.get(*index)) else { return [0.0; 4] };
                let spared = self.common.exclude_bias_and_norm && matches!(slot.role, Role::Value(kind) if kind.is_bias_or_norm());
                let depthwise = self.common.exclude_depthwise && slot.role == Role::Value(Kind::Depthwise);
                // A scheduled one is multiplied inside the kernels.
                let decay = if self.decay.is_some() { 1.0 } else { self.common.weight_decay };
                let weight_decay = if spared || depthwise { 0.0 } else { decay * slot.weight_decay };
                Segment { lr_multiplier: slot.learning_rate, weight_decay, active: *active, without_trust: spared }.to_array()
            };
            let rows: Vec<f32> = chunk.slots.iter().flat_map(row).chain([0.0; 4]).collect();
            Tensor::from_slice(self.params.gpu(), &rows, [chunk.slots.len() + 1, 4])
        };
        let tables = self.chunks.iter().map(table).collect::<Result<Vec<_>>>()?;
        if self.tables.len() >= KEPT {
            self.tables.remove(0);
        }
        self.tables.push((active, tables.clone()));
        Ok(tables)
    }

    /// Copies the gradients into the slabs, whose tables it gives. Copies within one pass cost less
    /// than a kernel for each.
    fn gather(&mut self, gradients: &Gradients) -> Result<Vec<Tensor>> {
        let present: Vec<bool> = self.keys.iter().map(|key| gradients.by_key(*key).is_some()).collect();
        if !present.contains(&true) {
            let message =
                format!("none of the {} gradients is of one of its parameters; make the optimizer of the model's", gradients.len());
            return Err(Error::argument("optimizer", message));
        }
        let tables = self.tables_of(&present)?;
        for chunk in &self.chunks {
            let version = std::sync::Arc::default();
            for index in &chunk.slots {
                let (Some(slot), Some(key)) = (self.slots.get(*index), self.keys.get(*index)) else { continue };
                let Some(gradient) = gradients.by_key(*key) else { continue };
                if gradient.dtype() != DType::F32 {
                    return Err(Error::dtype(&slot.name, format!("its gradient is {}, expected f32", gradient.dtype())));
                }
                chunk.gradients.slot(slot.start, slot.shape.clone(), std::sync::Arc::clone(&version)).copy_from(gradient)?;
            }
        }
        Ok(tables)
    }

    /// One step of `rule`, which is given the segments' norms where it `needs_norms`, and whose
    /// averages, if it corrects such, decay by `betas`.
    pub(super) fn step<O: Operator>(
        &mut self,
        gradients: &Gradients,
        learning_rate: Scalar,
        betas: [f32; 2],
        rule: impl Fn() -> O,
        needs_norms: bool,
    ) -> Result<()> {
        self.refresh()?;
        let tables = self.gather(gradients)?;
        self.scalars.write_scalars(&self.scalars_of_step(learning_rate, betas).to_array())?;
        self.scaler.as_ref().map_or(Ok(()), |scaler| scaler.unscale(&self.scalars))?;
        let sums: Vec<[&Tensor; 3]> = self.chunks.iter().zip(&tables).map(|(c, table)| [&c.gradients, &c.segments, table]).collect();
        for ([gradients, segments, table], max_norm) in
            sums.iter().flat_map(|slab| self.common.clip_each.filter(|most| most.is_finite()).map(|max_norm| (slab, max_norm)))
        {
            apply(ClipEach { max_norm }, &[gradients, segments, table, &self.scalars])?;
        }
        let control = clip_norm(&sums, &self.scalars, &self.skipped, betas)?;
        for ((values, chunk), table) in self.params.values().iter().zip(&self.chunks).zip(&tables) {
            let slab =
                Slab { values, gradients: &chunk.gradients, segments: &chunk.segments, table, scalars: &self.scalars, control: &control };
            let mut states: Vec<&Tensor> = chunk.states.iter().collect();
            let norms =
                needs_norms.then(|| apply_one(SegmentNorms, &[values, &chunk.gradients, &chunk.segments, table, &control])).transpose()?;
            states.extend(&norms);
            update(rule(), &slab, &states)?;
        }
        self.scaler.as_ref().map_or(Ok(()), |scaler| scaler.update(&control))?;
        self.params.bump_versions(false);
        self.params.advance();
        self.control = Some(control);
        Ok(())
    }
}
