//! What drawing will take, and whether it can be done at all.

use super::{DiffusionModel, DrawRequest, MAX_SIDE, Network, STRENGTH, Told, pixels};
use crate::{EngineError, budget};
use kun_tasks::TaskError;
use kun_tasks::image::diffusion::{LatentMask, ScheduleKind, Scheduler, Spacing};

/// What drawing will take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrawPlan {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Steps of the solver.
    pub steps: usize,
    /// Passes of the network for them: fewer where a picture is changed by less than 1.
    pub passes: usize,
    /// Guidance.
    pub guidance: f32,
    /// How far the picture is changed, where there is one.
    pub strength: f32,
    /// Tokens of the prompt, and of what is not wanted where guidance asks for it.
    pub prompt_tokens: usize,
    /// Bytes of weights.
    pub weights_bytes: u64,
    /// Bytes of activations.
    pub workspace_bytes: u64,
}

impl DiffusionModel {
    /// Steps and guidance that suit the model: distilled ones take few steps and no guidance.
    fn usual(&self) -> (usize, f32) {
        match (self.facts.scheduler.kind, self.facts.scheduler.spacing) {
            (ScheduleKind::Lcm { .. }, _) if self.unet.has("timestep_cond") => (4, 8.5),
            (ScheduleKind::Lcm { .. }, _) => (4, 1.0),
            (ScheduleKind::Euler { .. } | ScheduleKind::EulerAncestral, Spacing::Trailing) => (2, 1.0),
            (ScheduleKind::DpmSolver { .. }, _) => (20, 7.5),
            _ => (30, 7.5),
        }
    }

    /// What drawing will take; everything that can be wrong with a request is found here.
    ///
    /// # Errors
    /// [`EngineError::Parameter`], [`EngineError::ContextExceeded`] for a prompt that is too long,
    /// [`EngineError::Unsuitable`] for pictures that the model cannot take, [`EngineError::DoesNotFit`].
    pub fn plan(&self, request: &DrawRequest) -> Result<DrawPlan, EngineError> {
        let parameter = |name: &'static str, what: String| EngineError::Parameter { name, what };
        let unsuitable = |what: &str| EngineError::Unsuitable { what: what.to_owned() };
        if request.picture.is_some() && self.encoder.is_none() {
            return Err(unsuitable(
                "the model has no vae_encoder/model.onnx: it draws pictures but changes none",
            ));
        }
        if request.mask.is_some() && request.picture.is_none() {
            return Err(parameter("mask", "a mask needs the picture that it is for".to_owned()));
        }
        if self.fills_masks() && request.mask.is_none() {
            return Err(unsuitable("the model fills masks of pictures: give a picture and a mask"));
        }
        let (steps, guidance) = self.usual();
        let (steps, guidance) = (request.steps.unwrap_or(steps), request.guidance.unwrap_or(guidance));
        if !(0.0..=100.0).contains(&guidance) {
            return Err(parameter("guidance", format!("{guidance}, from 0 to 100")));
        }
        let usual = if self.fills_masks() { 1.0 } else { STRENGTH };
        let strength = request.strength.unwrap_or(usual);
        if !(0.0..=1.0).contains(&strength) {
            return Err(parameter("strength", format!("{strength}, from 0 to 1")));
        }
        let scheduler = self.solver(steps, request.picture.is_some().then_some(strength))?;
        let (width, height) = self.size(request)?;
        let mut prompt_tokens = self.reader.read(&request.prompt, request.truncate)?.len();
        let negative = self.reader.read(&request.negative, request.truncate)?;
        if self.is_guided(guidance) {
            prompt_tokens += negative.len();
        }
        if let Some(mask) = &request.mask
            && LatentMask::new(mask, width, height).map_err(pixels)?.is_empty()
        {
            let what = "nothing is to be drawn: a mask is white, or transparent, where the picture changes";
            return Err(parameter("mask", what.to_owned()));
        }
        let weights_bytes = self.networks().map(Network::weights_bytes).sum();
        let workspace_bytes = self.workspace_bytes(request, guidance, width, height)?;
        let available_bytes = self.max_memory_bytes.or_else(budget::available_bytes).unwrap_or(u64::MAX);
        let needed_bytes = workspace_bytes.saturating_add(weights_bytes);
        if needed_bytes > available_bytes.saturating_add(self.held()) {
            return Err(EngineError::DoesNotFit {
                needed_bytes,
                weights_bytes,
                kv_bytes: 0,
                workspace_bytes,
                available_bytes,
            });
        }
        let passes = scheduler.passes();
        Ok(DrawPlan {
            width,
            height,
            steps,
            passes,
            guidance,
            strength,
            prompt_tokens,
            weights_bytes,
            workspace_bytes,
        })
    }

    /// Bytes that it holds already, which are not available any more but need not be taken again. A budget that was given
    /// is for all of it.
    fn held(&self) -> u64 {
        if self.max_memory_bytes.is_some() { 0 } else { self.memory_bytes() }
    }

    pub(super) fn solver(&self, steps: usize, strength: Option<f32>) -> Result<Scheduler, EngineError> {
        let wrong = |name: &'static str| {
            move |error: TaskError| EngineError::Parameter { name, what: error.to_string() }
        };
        let mut solver = Scheduler::new(&self.facts.scheduler, steps).map_err(wrong("steps"))?;
        if let Some(strength) = strength {
            solver.begin(f64::from(strength)).map_err(wrong("strength"))?;
        }
        Ok(solver)
    }

    /// The size of the picture, in pixels.
    fn size(&self, request: &DrawRequest) -> Result<(usize, usize), EngineError> {
        let (multiple, scale, usual) = (self.facts.multiple, self.facts.scale, self.facts.usual_side);
        let fixed = |axis: usize| self.unet.dim("sample", axis).map(|cells| cells.saturating_mul(scale));
        let (mut width, mut height) = (usual, usual);
        if let Some(picture) = &request.picture {
            // About as many pixels as the model was made for, in the shape of the picture.
            let area = (usual * usual) as f64 / (picture.width() as f64 * picture.height() as f64);
            let side = |pixels: usize| {
                let wanted = (pixels as f64 * area.min(1.0).sqrt()) as usize;
                (wanted / multiple).max(1).saturating_mul(multiple).min(MAX_SIDE / multiple * multiple)
            };
            (width, height) = (side(picture.width()), side(picture.height()));
        }
        let check = |name: &'static str, asked: Option<usize>, usual: usize, fixed: Option<usize>| {
            let side = asked.or(fixed).unwrap_or(usual);
            let what = match fixed {
                Some(fixed) if fixed != side => format!("{side}; this model draws {fixed} alone"),
                _ if side == 0 || side > MAX_SIDE => format!("{side}, from {multiple} to {MAX_SIDE}"),
                _ if !side.is_multiple_of(multiple) => {
                    let below = side / multiple * multiple;
                    format!(
                        "{side} is no multiple of {multiple}, as {} and {} are",
                        below.max(multiple),
                        below + multiple
                    )
                }
                _ => return Ok(side),
            };
            Err(EngineError::Parameter { name, what })
        };
        Ok((
            check("width", request.width, width, fixed(3))?,
            check("height", request.height, height, fixed(2))?,
        ))
    }

    /// Bytes of activations of all networks that are run.
    fn workspace_bytes(
        &self,
        request: &DrawRequest,
        guidance: f32,
        width: usize,
        height: usize,
    ) -> Result<u64, EngineError> {
        let grid = self.grid(width, height);
        let told = Told {
            states: vec![Vec::new(); if self.is_guided(guidance) { 2 } else { 1 }],
            tokens: self.facts.max_tokens,
            guidance: None,
        };
        let states = self.unet.dim("encoder_hidden_states", 2).or(self.facts.state_width);
        let Some(states) = states else { return Ok(0) };
        let batch = self.unet.batch("sample").unwrap_or(told.states.len());
        let unet = self.unet.workspace_bytes(&[
            ("sample", &[batch, self.facts.unet_channels.unwrap_or(4), grid.rows, grid.columns]),
            ("timestep", &[1]),
            ("encoder_hidden_states", &[batch, told.tokens, states]),
            ("timestep_cond", &[batch, self.cond_width()]),
        ])?;
        let latents = [1, self.facts.latent_channels, grid.rows, grid.columns];
        let decoder = self.decoder.workspace_bytes(&[("latent_sample", &latents)])?;
        let encoder = match (&self.encoder, &request.picture) {
            (Some(encoder), Some(_)) => encoder.workspace_bytes(&[("sample", &[1, 3, height, width])])?,
            _ => 0,
        };
        Ok(unet.saturating_add(decoder).saturating_add(encoder))
    }
}
