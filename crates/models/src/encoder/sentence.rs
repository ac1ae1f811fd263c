//! Folders of sentence-transformers: `modules.json` and the configurations that it names.

use crate::ModelError;
use crate::encoder::config::MAX_WIDTH;
use crate::encoder::head::{Head, Judge, Pooling, SentenceDense};
use crate::encoder::settings::{function, wrong};
use kun_formats::HfConfig;
use serde_json::Value;

/// The head that a folder describes, if it is one of sentence-transformers.
///
/// # Errors
/// [`ModelError::Config`] for a module or setting that is not known: leaving it out would change the answers.
pub fn head(config: &HfConfig, width: usize) -> Result<Option<Head>, ModelError> {
    if config.sentence_modules.is_empty() {
        return Ok(None);
    }
    let (mut pooling, mut dense, mut normalize) = (None, Vec::new(), false);
    let mut out = width;
    for module in &config.sentence_modules {
        let key = format!("modules.json: {}", module.kind);
        match module.kind.as_str() {
            "Transformer" => {}
            "Pooling" => pooling = Some(pooling_of(&module.config)?),
            "Dense" => {
                let layer = dense_of(&module.path, &module.config)?;
                if layer.from != out {
                    return Err(wrong(&key, format!("takes {} elements, gets {out}", layer.from)));
                }
                out = layer.to;
                dense.push(layer);
            }
            "Normalize" => normalize = true,
            _ => {
                let known = "known: Transformer, Pooling, Dense, Normalize";
                return Err(wrong(&key, format!("is not supported; {known}")));
            }
        }
        if normalize && module.kind == "Dense" {
            return Err(wrong(&key, "after Normalize is not supported"));
        }
    }
    let pooling = pooling.unwrap_or(Pooling::Mean);
    Ok(Some(Head::Embedding { pooling, dense, normalize }))
}

/// The tokens that the `LogitScore` of a folder compares, if it has one.
///
/// # Errors
/// [`ModelError::Config`] for a token that is none, or one compared in a way that is not known.
pub fn judge(config: &HfConfig) -> Result<Option<Judge>, ModelError> {
    let Some(module) = config.sentence_modules.iter().find(|module| module.kind == "LogitScore") else {
        return Ok(None);
    };
    if let Some(other) =
        config.sentence_modules.iter().find(|m| !["Transformer", "LogitScore"].contains(&&*m.kind))
    {
        return Err(wrong(&format!("modules.json: {}", other.kind), "beside LogitScore is not supported"));
    }
    let token = |key: &str| match module.config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(wrong(&format!("{}: {key}", module.path), "is no token")),
        },
    };
    let yes = token("true_token_id")?;
    let yes = yes.ok_or_else(|| wrong(&format!("{}: true_token_id", module.path), "missing"))?;
    Ok(Some(Judge { yes, no: token("false_token_id")? }))
}

fn pooling_of(config: &Value) -> Result<Pooling, ModelError> {
    if let Some(mode) = config.get("pooling_mode").and_then(Value::as_str) {
        return named(mode);
    }
    let modes = [
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_max_tokens", "max"),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        ("pooling_mode_weightedmean_tokens", "weightedmean"),
        ("pooling_mode_lasttoken", "lasttoken"),
    ];
    let on = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(false);
    let chosen: Vec<&str> = modes.iter().filter(|(key, _)| on(key)).map(|(_, mode)| *mode).collect();
    match chosen.as_slice() {
        [mode] => named(mode),
        [] => Err(wrong("pooling_mode", "none is chosen")),
        several => {
            Err(wrong("pooling_mode", format!("{} together are not supported", several.join(" and "))))
        }
    }
}

fn named(mode: &str) -> Result<Pooling, ModelError> {
    Ok(match mode {
        "cls" => Pooling::First,
        "mean" => Pooling::Mean,
        "max" => Pooling::Max,
        "mean_sqrt_len_tokens" => Pooling::MeanRoot,
        "weightedmean" => Pooling::Weighted,
        "lasttoken" => Pooling::Last,
        other => {
            let name: String = other.chars().take(60).collect();
            return Err(wrong("pooling_mode", format!("`{name}` is not supported")));
        }
    })
}

fn dense_of(path: &str, config: &Value) -> Result<SentenceDense, ModelError> {
    let width = |key: &str| {
        let width = config.get(key).and_then(Value::as_u64).and_then(|width| usize::try_from(width).ok());
        let width = width.filter(|width| (1..=MAX_WIDTH).contains(width));
        width.ok_or_else(|| {
            wrong(&format!("{path}: {key}"), format!("missing, or not within 1 to {MAX_WIDTH}"))
        })
    };
    let name = config.get("activation_function").and_then(Value::as_str).unwrap_or("Tanh");
    let short = name.rsplit('.').next().unwrap_or(name).to_ascii_lowercase();
    let function = match short.as_str() {
        "identity" => None,
        _ => Some(function(&short).ok_or_else(|| {
            let name: String = name.chars().take(60).collect();
            wrong(&format!("{path}: activation_function"), format!("`{name}` is not supported"))
        })?),
    };
    Ok(SentenceDense {
        path: path.to_owned(),
        from: width("in_features")?,
        to: width("out_features")?,
        bias: config.get("bias").and_then(Value::as_bool).unwrap_or(true),
        function,
    })
}
