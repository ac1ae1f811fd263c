//! The second generation of Jina's embedders (arXiv:2310.19923).

use crate::ModelError;
use crate::encoder::names::Names;
use crate::encoder::settings::wrong;
use crate::encoder::{EncoderConfig, FeedForward, Positions, Settings};

/// What GGUF files' `jina-bert-v2` counts as.
pub(super) const JINA_V2: &str = "jina_bert_v2";

/// BERT's layers with distances instead of positions, and gated feed-forwards.
pub fn jina_v2(settings: &Settings<'_>) -> Result<EncoderConfig, ModelError> {
    let kind = settings.word("feed_forward_type", "geglu")?;
    if kind != "geglu" {
        return Err(wrong("feed_forward_type", format!("`{kind}` is not supported, only `geglu`")));
    }
    let config = EncoderConfig::common(settings)?;
    Ok(EncoderConfig {
        positions: Positions::Slopes(slopes(config.heads)),
        feed_forward: FeedForward::GatedJoined,
        ffn_bias: false,
        names: Names {
            gate: "encoder.layer.{}.mlp.gated_layers",
            down: "encoder.layer.{}.mlp.wo",
            ffn_norm: "encoder.layer.{}.mlp.layernorm",
            ..Names::BERT
        },
        ..config
    })
}

/// How much each head's scores fall with a step of distance (ALiBi, arXiv:2108.12409): a geometric series for a power of two
/// heads; more heads take every other slope of twice as many.
fn slopes(heads: usize) -> Vec<f32> {
    let whole = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    let slope = |step: usize, of: usize| (2f64.powf(-8.0 * step as f64 / of as f64)) as f32;
    let first = (1..=whole).map(|step| slope(step, whole));
    let rest = (0..heads - whole).map(|index| slope(2 * index + 1, 2 * whole));
    first.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::slopes;

    #[test]
    fn slopes_are_those_of_the_paper() {
        assert_eq!(slopes(8)[..2], [0.5, 0.25]);
        assert_eq!(slopes(2), [0.0625, 0.00390625]);
        let twelve = slopes(12);
        assert_eq!((twelve.len(), twelve[0], twelve[7]), (12, 0.5, 2f32.powi(-8)));
        assert!((twelve[8] - 2f32.powf(-0.5)).abs() < 1e-7 && (twelve[9] - 2f32.powf(-1.5)).abs() < 1e-7);
    }
}
