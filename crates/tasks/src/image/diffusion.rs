//! Pictures from noise (latent diffusion, arXiv:2112.10752): the arithmetic around the networks.
//!
//! Numbers follow diffusers 0.42, so that a seed's picture is the one that a model's authors meant.

pub mod config;
pub mod latents;
pub mod noise;
mod schedule;
pub mod scheduler;

pub use config::{Prediction, ScheduleKind, SchedulerConfig, Spacing, lenient_json};
pub use latents::{Guidance, LatentMask, guidance_embedding, to_pixels, to_signed};
pub use noise::{BetaSchedule, Betas};
pub use scheduler::Scheduler;
