//! Pictures drawn from words: Stable Diffusion and its kin as a folder of ONNX files.

mod folder;
mod network;
mod noise;
mod plan;
mod prompt;
mod stage;

pub use folder::{LAYOUT, is_drawing};
pub use noise::{Normals, fresh_seed};
pub use plan::DrawPlan;
pub use stage::{Stage, Watch};

use super::{Progress, VisionOptions, pixels};
use crate::onnx::Memory;
use crate::{EngineError, budget};
use folder::Facts;
use kun_tasks::image::diffusion::{Guidance, LatentMask, guidance_embedding, to_pixels, to_signed};
use kun_tasks::pixels::{Image, Samples};
use network::{Network, Pass};
use prompt::Reader;
use std::path::Path;
use std::sync::Arc;

/// Longest side of a picture, in pixels.
pub const MAX_SIDE: usize = 4096;
/// How far a picture is changed unless told otherwise.
pub const STRENGTH: f32 = 0.8;

/// What is to be drawn.
#[derive(Clone, Debug, Default)]
pub struct DrawRequest {
    /// What is in the picture.
    pub prompt: String,
    /// What is not.
    pub negative: String,
    /// Pixels in a row; `None`: what the model was made for, or about as many with the shape of `picture`.
    pub width: Option<usize>,
    /// Rows; `None`: as `width`.
    pub height: Option<usize>,
    /// Steps; `None`: what suits the model.
    pub steps: Option<usize>,
    /// How far from `negative` to `prompt`; 1: no guidance. `None`: what suits the model.
    pub guidance: Option<f32>,
    /// The noise that is begun with. The same one gives the same picture, whatever the number of threads.
    pub seed: u64,
    /// Cut prompts that are too long instead of refusing them.
    pub truncate: bool,
    /// A picture to change.
    pub picture: Option<Arc<Image>>,
    /// How far, from 0 to 1; `None`: [`STRENGTH`], or 1 for a network that was made for masks.
    pub strength: Option<f32>,
    /// What of `picture` is drawn anew: where the mask is transparent, or without alpha, where it is white.
    pub mask: Option<Arc<Image>>,
}

/// A picture before its values are rounded: planes `[3, H, W]` from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Planes {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The values.
    pub values: Vec<f32>,
}

impl Planes {
    /// The picture, in 8 bits.
    ///
    /// # Errors
    /// None for planes that were drawn.
    pub fn image(&self) -> Result<Image, EngineError> {
        let plane = self.width * self.height;
        let byte = |i: usize, c: usize| (self.values[c * plane + i] * 255.0).round().clamp(0.0, 255.0) as u8;
        let samples = (0..plane).flat_map(|i| (0..3).map(move |c| (i, c))).map(|(i, c)| byte(i, c)).collect();
        Image::new(self.width, self.height, 3, Samples::U8(samples)).map_err(pixels)
    }
}

/// A model that draws.
#[derive(Debug)]
pub struct DiffusionModel {
    facts: Facts,
    reader: Reader,
    text: Network,
    unet: Network,
    decoder: Network,
    encoder: Option<Network>,
    /// Bytes that it may take; `None`: what the machine has.
    max_memory_bytes: Option<u64>,
}

/// Noise of so many values, standard normal.
pub type Noise<'a> = dyn FnMut(usize) -> Vec<f32> + 'a;

/// The size of latents.
#[derive(Clone, Copy, Debug)]
struct Grid {
    columns: usize,
    rows: usize,
}

impl Grid {
    fn cells(self) -> usize {
        self.columns * self.rows
    }
}

/// What a step's pass is told beside the sample.
struct Told {
    /// States of the texts, one a row of the batch: without and with the prompt, or with it alone. `[T, D]` each.
    states: Vec<Vec<f32>>,
    tokens: usize,
    /// Of networks that are told the guidance.
    guidance: Option<Vec<f32>>,
}

impl DiffusionModel {
    /// Opens the folder at `path`, or that of the file at `path`.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] naming what is missing or not known, [`EngineError::DoesNotFit`], those of reading.
    pub fn open(path: &Path, options: &VisionOptions) -> Result<DiffusionModel, EngineError> {
        let facts = Facts::read(path)?;
        let available = options.max_memory_bytes.or_else(budget::available_bytes);
        let mut taken = 0;
        let mut open = |name: &str| -> Result<Network, EngineError> {
            let left = available.map(|all| all.saturating_sub(taken));
            let file = facts.folder.join(name).join("model.onnx");
            let network = Network::open(&file, &VisionOptions { max_memory_bytes: left, ..*options })?;
            taken += network.weights_bytes();
            Ok(network)
        };
        let text = open("text_encoder")?;
        let unet = open("unet")?;
        let decoder = open("vae_decoder")?;
        let encoder = if facts.has_encoder { Some(open("vae_encoder")?) } else { None };
        let reader = Reader::open(&facts.folder, facts.max_tokens)?;
        let channels = facts.latent_channels;
        let taken = unet.dim("sample", 1).unwrap_or(facts.unet_channels.unwrap_or(channels));
        if taken != channels && taken != 2 * channels + 1 {
            let what = format!(
                "unet/model.onnx takes {taken} channels; {channels}, or {} for masks, are known",
                2 * channels + 1
            );
            return Err(EngineError::Mismatch { what });
        }
        let facts = Facts { unet_channels: Some(taken), ..facts };
        Ok(DiffusionModel {
            facts,
            reader,
            text,
            unet,
            decoder,
            encoder,
            max_memory_bytes: options.max_memory_bytes,
        })
    }

    /// Bytes it takes: weights, and what its plans so far keep.
    pub fn memory_bytes(&self) -> u64 {
        self.networks().map(Network::memory).map(Memory::bytes).sum()
    }

    /// Whether pictures can be changed, not only drawn.
    pub fn changes_pictures(&self) -> bool {
        self.encoder.is_some()
    }

    /// Whether it was made to fill masks.
    pub fn fills_masks(&self) -> bool {
        self.facts.unet_channels != Some(self.facts.latent_channels)
    }

    /// The solver, by the name of its class.
    pub fn scheduler(&self) -> &str {
        &self.facts.scheduler_class
    }

    fn networks(&self) -> impl Iterator<Item = &Network> {
        [&self.text, &self.unet, &self.decoder].into_iter().chain(&self.encoder)
    }

    fn grid(&self, width: usize, height: usize) -> Grid {
        Grid { columns: width / self.facts.scale, rows: height / self.facts.scale }
    }

    fn cond_width(&self) -> usize {
        self.unet.dim("timestep_cond", 1).or(self.facts.cond_width).unwrap_or(256).clamp(1, 4096)
    }

    /// Whether each step runs the network without the prompt too.
    fn is_guided(&self, guidance: f32) -> bool {
        Guidance(guidance).is_on() && !self.unet.has("timestep_cond")
    }

    /// Draws; `progress` hears of passes done and in all, and may end the work.
    ///
    /// # Errors
    /// Those of [`DiffusionModel::plan`], [`EngineError::Cancelled`], what the networks say.
    pub fn draw(&self, request: &DrawRequest, progress: &mut Progress<'_>) -> Result<Image, EngineError> {
        let mut normals = Normals::new(request.seed);
        self.draw_from(request, &mut |count| normals.take(count), progress)?.image()
    }

    /// [`DiffusionModel::draw`], which shows at most so many partial pictures at even distances on its way. The picture at
    /// the end is the same with and without them; each takes a pass of the decoder.
    ///
    /// # Errors
    /// As [`DiffusionModel::draw`].
    pub fn draw_in_stages(
        &self,
        request: &DrawRequest,
        partial_images: usize,
        watch: &mut Watch<'_>,
    ) -> Result<Image, EngineError> {
        let mut normals = Normals::new(request.seed);
        self.planes(request, &mut |count| normals.take(count), partial_images, watch)?.image()
    }

    /// [`DiffusionModel::draw`] with noise from elsewhere, asked for in this order: for the picture's latents, to begin
    /// with, for the latents of what is not masked, after each step.
    ///
    /// # Errors
    /// As [`DiffusionModel::draw`].
    pub fn draw_from(
        &self,
        request: &DrawRequest,
        noise: &mut Noise<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<Planes, EngineError> {
        self.planes(request, noise, 0, &mut |stage| match stage {
            Stage::Passes { done, all } => progress(done, all),
            Stage::Partial(_) => true,
        })
    }

    fn planes(
        &self,
        request: &DrawRequest,
        noise: &mut Noise<'_>,
        partial_images: usize,
        watch: &mut Watch<'_>,
    ) -> Result<Planes, EngineError> {
        let plan = self.plan(request)?;
        let (width, height) = (plan.width, plan.height);
        let grid = self.grid(width, height);
        let channels = self.facts.latent_channels;
        let count = channels * grid.cells();
        let mut solver = self.solver(plan.steps, request.picture.is_some().then_some(plan.strength))?;
        let told = self.told(request, plan.guidance)?;

        let mask = match &request.mask {
            Some(mask) => Some(LatentMask::new(mask, width, height).map_err(pixels)?),
            None => None,
        };
        let picture = match &request.picture {
            Some(picture) => Some(to_signed(picture, width, height).map_err(pixels)?),
            None => None,
        };
        let from_noise = picture.is_none() || mask.is_some() && plan.strength == 1.0;
        let known = match &picture {
            Some(picture) if !from_noise || !self.fills_masks() => {
                Some(self.encode(picture, width, height, noise)?)
            }
            _ => None,
        };
        let fresh = noise(count);
        let mut sample = match &known {
            Some(known) if !from_noise => solver.noised(known, &fresh),
            _ => fresh.iter().map(|v| v * solver.initial_scale()).collect(),
        };
        // Mask and what is around it, for networks that take them.
        let around = match (&mask, &picture) {
            (Some(mask), Some(picture)) if self.fills_masks() => {
                let hidden = self.encode(&mask.hide(picture), width, height, noise)?;
                [mask.latents(self.facts.scale), hidden].concat()
            }
            _ => Vec::new(),
        };
        // What stays as it is, where the network knows no masks.
        let kept = match (&known, &mask) {
            (Some(known), Some(mask)) if !self.fills_masks() => Some((known, mask.latents(self.facts.scale))),
            _ => None,
        };

        let passes = solver.passes();
        let all = passes + 1;
        for done in 0..passes {
            if !watch(Stage::Passes { done, all }) {
                return Err(EngineError::Cancelled);
            }
            let input = [solver.scaled(&sample), around.clone()].concat();
            let outputs = self.predict(&input, grid, solver.timestep(), &told)?;
            let output = match outputs.as_slice() {
                [without, with] => Guidance(plan.guidance).apply(without, with),
                outputs => outputs.concat(),
            };
            if stage::is_shown(done + 1, passes, partial_images) {
                let mut estimate = solver.estimate(&output, &sample);
                if let Some((known, cells)) = &kept {
                    estimate = blended(&estimate, known, cells);
                }
                let values = self.decode(&estimate, grid, width, height)?;
                if !watch(Stage::Partial(Planes { width, height, values }.image()?)) {
                    return Err(EngineError::Cancelled);
                }
            }
            sample = solver.step(&output, &sample, &mut || noise(count));
            if let Some((known, cells)) = &kept {
                sample = blended(&sample, &solver.noised(known, &fresh), cells);
            }
        }
        if !watch(Stage::Passes { done: passes, all }) {
            return Err(EngineError::Cancelled);
        }
        let values = self.decode(&sample, grid, width, height)?;
        watch(Stage::Passes { done: all, all });
        Ok(Planes { width, height, values })
    }

    /// States of the prompt, and of what is not wanted where guidance asks for them.
    fn told(&self, request: &DrawRequest, guidance: f32) -> Result<Told, EngineError> {
        let mut texts = vec![request.prompt.as_str()];
        if self.is_guided(guidance) {
            texts.insert(0, &request.negative);
        }
        let tokens = self.reader.max_tokens();
        let states = texts
            .into_iter()
            .map(|text| {
                let ids = self.reader.ids(text, request.truncate)?;
                let mask = vec![1.0; ids.len()];
                let ids: Vec<f32> = ids.iter().map(|id| *id as f32).collect();
                let outputs = self.text.run(&[
                    Pass { name: "input_ids", shape: &[1, tokens], values: &ids },
                    Pass { name: "attention_mask", shape: &[1, tokens], values: &mask },
                ])?;
                let (shape, values) = outputs.named("last_hidden_state")?;
                match shape[..] {
                    [1, found, _] if found == tokens => Ok(values),
                    _ => Err(self.text.wrong(format!("states of shape {shape:?} for {tokens} tokens"))),
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        let width = self.cond_width();
        let guidance = self.unet.has("timestep_cond").then(|| guidance_embedding(guidance, width));
        Ok(Told { states, tokens, guidance })
    }

    /// What the network makes of a sample, once for every text.
    fn predict(
        &self,
        sample: &[f32],
        grid: Grid,
        time: f64,
        told: &Told,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let channels = self.facts.unet_channels.unwrap_or(self.facts.latent_channels);
        let count = self.facts.latent_channels * grid.cells();
        let fixed = self.unet.batch("sample");
        let mut results = Vec::new();
        for group in told.states.chunks(fixed.unwrap_or(told.states.len()).max(1)) {
            // A network of a fixed batch gets the last row again.
            let rows = fixed.unwrap_or(group.len());
            let row = |i: usize| &group[i.min(group.len() - 1)];
            let states: Vec<f32> = (0..rows).flat_map(|i| row(i).iter().copied()).collect();
            let width = row(0).len() / told.tokens.max(1);
            let guidance = told.guidance.as_deref().unwrap_or_default();
            let outputs = self.unet.run(&[
                Pass {
                    name: "sample",
                    shape: &[rows, channels, grid.rows, grid.columns],
                    values: &sample.repeat(rows),
                },
                Pass { name: "timestep", shape: &[1], values: &[time as f32] },
                Pass { name: "encoder_hidden_states", shape: &[rows, told.tokens, width], values: &states },
                Pass {
                    name: "timestep_cond",
                    shape: &[rows, guidance.len()],
                    values: &guidance.repeat(rows),
                },
            ])?;
            let (shape, values) = outputs.named("out_sample")?;
            if values.len() != rows * count {
                return Err(self
                    .unet
                    .wrong(format!("an output of shape {shape:?}, not {rows} of {count} values")));
            }
            self.unet.finite(&values, &format!("at timestep {time}"))?;
            results.extend(values.chunks_exact(count).take(group.len()).map(<[f32]>::to_vec));
        }
        Ok(results)
    }

    fn encode(
        &self,
        planes: &[f32],
        width: usize,
        height: usize,
        noise: &mut Noise<'_>,
    ) -> Result<Vec<f32>, EngineError> {
        let encoder = self.encoder.as_ref().ok_or(EngineError::Unloaded)?;
        let grid = self.grid(width, height);
        let count = self.facts.latent_channels * grid.cells();
        let outputs =
            encoder.run(&[Pass { name: "sample", shape: &[1, 3, height, width], values: planes }])?;
        let (shape, values) = outputs.first()?;
        encoder.finite(&values, "for the picture")?;
        let latents: Vec<f32> = if values.len() == 2 * count {
            // Mean and logarithm of the variance.
            let fresh = noise(count);
            let deviation = |v: f32| (v.clamp(-30.0, 20.0) / 2.0).exp();
            (0..count).map(|i| values[i] + deviation(values[count + i]) * fresh[i]).collect()
        } else if values.len() == count {
            values
        } else {
            return Err(encoder.wrong(format!("latents of shape {shape:?}, not {count} values")));
        };
        Ok(latents.into_iter().map(|v| v * self.facts.scaling_factor).collect())
    }

    fn decode(
        &self,
        sample: &[f32],
        grid: Grid,
        width: usize,
        height: usize,
    ) -> Result<Vec<f32>, EngineError> {
        let latents: Vec<f32> = sample.iter().map(|v| v / self.facts.scaling_factor).collect();
        let shape = [1, self.facts.latent_channels, grid.rows, grid.columns];
        let outputs = self.decoder.run(&[Pass { name: "latent_sample", shape: &shape, values: &latents }])?;
        let (shape, values) = outputs.first()?;
        if shape != [1, 3, height, width] {
            return Err(self.decoder.wrong(format!("a picture of shape {shape:?}, not {width}x{height}")));
        }
        self.decoder.finite(&values, "for the picture")?;
        Ok(to_pixels(&values))
    }
}

/// `drawn` where `cells` are 1 and `known` where they are 0, in every channel.
fn blended(drawn: &[f32], known: &[f32], cells: &[f32]) -> Vec<f32> {
    let pairs = drawn.iter().zip(known).zip(cells.iter().cycle());
    pairs.map(|((drawn, known), cell)| drawn * cell + known * (1.0 - cell)).collect()
}
