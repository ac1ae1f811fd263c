//! How the post-processor of a `tokenizer.json` joins texts with special tokens.

use serde_json::Value;

use crate::tokenizer::encoding::{Joint, Joints};
use crate::tokenizer::{TokenizerError, invalid};

/// The ids that a post-processor puts before and after a single text.
pub(super) fn post_processor(value: &Value) -> (Vec<u32>, Vec<u32>) {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value["type"].as_str() {
        Some("Sequence") => value["processors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(post_processor)
            .find(|(before, after)| !before.is_empty() || !after.is_empty())
            .unwrap_or_default(),
        Some("BertProcessing" | "RobertaProcessing") => {
            (id(&value["cls"][1]).into_iter().collect(), id(&value["sep"][1]).into_iter().collect())
        }
        Some("TemplateProcessing") => {
            let (mut before, mut after, mut seen) = (Vec::new(), Vec::new(), false);
            for item in value["single"].as_array().into_iter().flatten() {
                if item.get("Sequence").is_some() {
                    seen = true;
                } else if let Some(name) = item["SpecialToken"]["id"].as_str() {
                    let ids = value["special_tokens"][name]["ids"].as_array();
                    let side = if seen { &mut after } else { &mut before };
                    side.extend(ids.into_iter().flatten().filter_map(id));
                }
            }
            (before, after)
        }
        _ => Default::default(),
    }
}

/// Elements of a pattern that texts are joined by.
const MAX_JOINTS: usize = 64;

pub(super) fn guarded_joints(
    value: &Value,
    around: &(Vec<u32>, Vec<u32>),
) -> Result<Option<Joints>, TokenizerError> {
    let joints = joints(value, around);
    match &joints {
        Some(found) if found.one.len().max(found.two.len()) > MAX_JOINTS => {
            let count = found.one.len().max(found.two.len());
            Err(invalid(format!("post_processor: {count} elements, limit {MAX_JOINTS}")))
        }
        _ => Ok(joints),
    }
}

/// How a post-processor joins texts.
fn joints(value: &Value, (before, after): &(Vec<u32>, Vec<u32>)) -> Option<Joints> {
    let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    match value["type"].as_str()? {
        "Sequence" => value["processors"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|inner| joints(inner, &post_processor(inner))),
        "BertProcessing" => Some(Joints::around(before, after)),
        "RobertaProcessing" => {
            let tokens = |ids: &[u32]| ids.iter().map(|&id| Joint::Token(id, 0)).collect::<Vec<_>>();
            let one = [tokens(before), vec![Joint::First(0)], tokens(after)].concat();
            let two = [&one[..], &tokens(after), &[Joint::Second(0)], &tokens(after)].concat();
            Some(Joints { one, two })
        }
        "TemplateProcessing" => {
            let list = |field: &str| {
                let mut list = Vec::new();
                for item in value[field].as_array().into_iter().flatten() {
                    let (text, token) = (&item["Sequence"], &item["SpecialToken"]);
                    if let Some(name) = text["id"].as_str() {
                        let kind = number(&text["type_id"]).unwrap_or(0);
                        list.push(if name == "B" { Joint::Second(kind) } else { Joint::First(kind) });
                    } else if let Some(name) = token["id"].as_str() {
                        let kind = number(&token["type_id"]).unwrap_or(0);
                        let ids = value["special_tokens"][name]["ids"].as_array();
                        let ids = ids.into_iter().flatten().filter_map(number);
                        list.extend(ids.map(|id| Joint::Token(id, kind)));
                    }
                }
                list
            };
            let (one, two) = (list("single"), list("pair"));
            let complete = one.iter().any(|joint| matches!(joint, Joint::First(_)));
            let pair = two.iter().any(|joint| matches!(joint, Joint::Second(_)));
            let two = if pair { two } else { Joints::around(before, after).two };
            complete.then_some(Joints { one, two })
        }
        _ => None,
    }
}

/// Whether a post-processor trims the places of tokens, and with a space put before the text.
pub(super) fn trims(value: &Value) -> Option<bool> {
    match value["type"].as_str()? {
        "Sequence" => value["processors"].as_array().into_iter().flatten().find_map(trims),
        "ByteLevel" | "RobertaProcessing" => {
            let flag = |name: &str| value[name].as_bool().unwrap_or(true);
            flag("trim_offsets").then(|| flag("add_prefix_space"))
        }
        _ => None,
    }
}
