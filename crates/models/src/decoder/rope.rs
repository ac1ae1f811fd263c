//! Rotary positions (RoPE, arXiv:2104.09864) and the ways to stretch them over longer contexts.

use crate::ModelError;
use crate::decoder::config::{MAX_CONTEXT, narrow};
use crate::metadata::{Format, Metadata};
use crate::names::Setting;
use kun_graph::graph::RopeStyle;
use std::f64::consts::PI;

/// How positions turn queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Which elements turn together.
    pub style: RopeStyle,
    /// Ratio of the longest to the shortest wavelength.
    pub base: f64,
    /// Leading elements of each head that turn; even, at most `Dh`.
    pub rotary_dim: usize,
    /// The stretching.
    pub scaling: RopeScaling,
}

/// How frequencies are stretched for contexts longer than those of the first training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Every frequency divided (arXiv:2306.15595).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Long wavelengths divided, short ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f64,
        /// Wavelengths above `original_context / low_factor` are long.
        low_factor: f64,
        /// Wavelengths below `original_context / high_factor` are short.
        high_factor: f64,
        /// Positions of the first training.
        original_context: f64,
    },
    /// Slow dimensions divided, fast ones kept, a ramp between, and a factor on the scores (YaRN, arXiv:2309.00071).
    Yarn {
        /// The divisor of slow dimensions.
        factor: f64,
        /// Positions of the first training.
        original_context: f64,
        /// Dimensions that turn this often within the original context are fast.
        beta_fast: f64,
        /// Dimensions that turn this often within the original context are slow.
        beta_slow: f64,
        /// Whether the ends of the ramp are rounded outwards to whole dimensions.
        truncate: bool,
        /// Factor on sine and cosine.
        magnitude: f64,
    },
}

/// Largest divisor of frequencies that a file may state.
const MAX_FACTOR: f64 = 65536.0;

impl RopeConfig {
    /// Reads the settings; `context_tokens` stands in for an original context that the file leaves out.
    ///
    /// # Errors
    /// [`ModelError::Config`] if a value is out of range or the way of stretching is not known.
    pub fn from_metadata(
        meta: &Metadata<'_>,
        head_dim: usize,
        context_tokens: usize,
    ) -> Result<RopeConfig, ModelError> {
        let rotary_dim = match meta.format() {
            Format::Gguf => meta.optional_count(Setting::RotaryDim, 2..=head_dim)?.unwrap_or(head_dim),
            Format::HuggingFace => {
                let share = meta.optional_number(Setting::RotaryShare, 0.0..=1.0)?.unwrap_or(1.0);
                // Truncated, as transformers does.
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss
                )]
                let dim = (head_dim as f64 * share) as usize;
                dim
            }
        };
        if rotary_dim < 2 || !rotary_dim.is_multiple_of(2) {
            let setting =
                if meta.format() == Format::Gguf { Setting::RotaryDim } else { Setting::RotaryShare };
            let what = format!(
                "{rotary_dim} elements of each head would turn; it takes an even number of at least 2"
            );
            return Err(meta.error(setting, what));
        }
        Ok(RopeConfig {
            style: RopeStyle::Halves,
            base: meta.optional_number(Setting::RopeBase, 1.0..=1e12)?.unwrap_or(10_000.0),
            rotary_dim,
            scaling: RopeScaling::from_metadata(meta, context_tokens)?,
        })
    }

    /// The angle per position of each pair, `[rotary_dim / 2]`; `divisors` divides them before any stretching, as
    /// `rope_freqs.weight` of GGUF files does.
    pub fn inverse_frequencies(&self, divisors: Option<&[f32]>) -> Vec<f32> {
        (0..self.rotary_dim / 2)
            .map(|pair| {
                let trained = self.base.powf(-as_float(2 * pair) / as_float(self.rotary_dim));
                let divisor = divisors.and_then(|divisors| divisors.get(pair)).map_or(1.0, |d| f64::from(*d));
                narrow(self.scaling.stretch(trained / divisor, pair, self.rotary_dim, self.base))
            })
            .collect()
    }
}

impl RopeScaling {
    fn from_metadata(meta: &Metadata<'_>, context_tokens: usize) -> Result<RopeScaling, ModelError> {
        let factor = || meta.number(Setting::RopeFactor, 1.0..=MAX_FACTOR);
        let original_context = || {
            let stated = meta.optional_count(Setting::RopeOriginalContext, 1..=MAX_CONTEXT)?;
            Ok::<_, ModelError>(as_float(stated.unwrap_or(context_tokens)))
        };
        match meta.optional_text(Setting::RopeScaling)? {
            // Stretches only what lies beyond the stated context, where Kun does not go.
            None | Some("none" | "default" | "dynamic") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear { factor: factor()? }),
            Some("llama3") => {
                let low_factor = meta.number(Setting::RopeLowFactor, 1e-3..=MAX_FACTOR)?;
                let high_factor = meta.number(Setting::RopeHighFactor, 1e-3..=MAX_FACTOR)?;
                if high_factor <= low_factor {
                    let what = format!("{high_factor} is not above the low factor {low_factor}");
                    return Err(meta.error(Setting::RopeHighFactor, what));
                }
                let (factor, original_context) = (factor()?, original_context()?);
                Ok(RopeScaling::Llama3 { factor, low_factor, high_factor, original_context })
            }
            Some("yarn") => {
                let factor = factor()?;
                if let Some(share) = meta.optional_number(Setting::RopeExtrapolation, -1.0..=1.0)?
                    && (0.0..1.0).contains(&share)
                {
                    return Err(
                        meta.error(Setting::RopeExtrapolation, format!("{share} is not supported; known: 1"))
                    );
                }
                Ok(RopeScaling::Yarn {
                    factor,
                    original_context: original_context()?,
                    beta_fast: meta.optional_number(Setting::RopeBetaFast, 1e-3..=1e6)?.unwrap_or(32.0),
                    beta_slow: meta.optional_number(Setting::RopeBetaSlow, 1e-3..=1e6)?.unwrap_or(1.0),
                    truncate: meta.optional_flag(Setting::RopeTruncate)?.unwrap_or(true),
                    magnitude: yarn_magnitude(meta, factor)?,
                })
            }
            Some(other) => {
                let what = format!("`{other}` is not supported; known: none, linear, dynamic, llama3, yarn");
                Err(meta.error(Setting::RopeScaling, what))
            }
        }
    }

    /// Positions that the stretched model is made for, given those that the file states.
    pub fn context_tokens(&self, stated: usize) -> usize {
        match self {
            // Configurations of YaRN models often state the original context only.
            RopeScaling::Yarn { factor, original_context, .. } => {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let stretched = (factor * original_context) as usize;
                stated.max(stretched).min(MAX_CONTEXT)
            }
            _ => stated,
        }
    }

    /// Factor on sine and cosine.
    pub fn magnitude(&self) -> f32 {
        match self {
            RopeScaling::Yarn { magnitude, .. } => narrow(*magnitude),
            _ => 1.0,
        }
    }

    /// `trained` is the angle per position of pair `pair`.
    fn stretch(&self, trained: f64, pair: usize, rotary_dim: usize, base: f64) -> f64 {
        match *self {
            RopeScaling::None => trained,
            RopeScaling::Linear { factor } => trained / factor,
            RopeScaling::Llama3 { factor, low_factor, high_factor, original_context } => {
                let wavelength = 2.0 * PI / trained;
                let kept = (original_context / wavelength - low_factor) / (high_factor - low_factor);
                let kept = kept.clamp(0.0, 1.0);
                (1.0 - kept) * trained / factor + kept * trained
            }
            RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, truncate, .. } => {
                // The dimension whose pair turns `turns` times within the original context.
                let dimension = |turns: f64| {
                    as_float(rotary_dim) * (original_context / (turns * 2.0 * PI)).ln() / (2.0 * base.ln())
                };
                let (mut first, mut last) = (dimension(beta_fast), dimension(beta_slow));
                if truncate {
                    (first, last) = (first.floor(), last.ceil());
                }
                let (first, last) = (first.max(0.0), last.min(as_float(rotary_dim - 1)));
                let stretched = ((as_float(pair) - first) / (last - first).max(1e-3)).clamp(0.0, 1.0);
                stretched * trained / factor + (1.0 - stretched) * trained
            }
        }
    }
}

/// The paper's `0.1 ln(s) + 1`, or what the file says instead.
fn yarn_magnitude(meta: &Metadata<'_>, factor: f64) -> Result<f64, ModelError> {
    let temperature = |scale: f64| 0.1 * scale * factor.ln() + 1.0;
    let stated = meta.optional_number(Setting::RopeMagnitude, 1e-3..=1e3)?;
    let multiplier = meta.optional_number(Setting::RopeLogMultiplier, 0.0..=1e3)?.filter(|m| *m > 0.0);
    match meta.format() {
        // llama.cpp multiplies the paper's factor by the stated one, and divides by the second logarithm.
        Format::Gguf => Ok(temperature(1.0) / multiplier.map_or(1.0, temperature) * stated.unwrap_or(1.0)),
        Format::HuggingFace => {
            let all = meta.optional_number(Setting::RopeScaleAll, 0.0..=1e3)?.filter(|m| *m > 0.0);
            Ok(stated.unwrap_or_else(|| match (multiplier, all) {
                (Some(multiplier), Some(all)) => temperature(multiplier) / temperature(all),
                _ => temperature(1.0),
            }))
        }
    }
}

/// Exact: every length here is far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn as_float(value: usize) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;
