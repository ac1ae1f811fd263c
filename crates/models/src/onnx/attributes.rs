//! Attributes of a node, typed.

use kun_formats::OnnxFile;
use kun_formats::onnx::proto::{AttributeProto, GraphProto, NodeProto};
use kun_formats::onnx::{dtype, lone_tensor};
use kun_tensor::{DType, Tensor};
use std::collections::HashMap;
use std::rc::Rc;

/// Attributes that a local function was called with, by name.
pub(super) type Given<'a> = Rc<HashMap<&'a str, &'a AttributeProto>>;

/// The attributes of one node; references of a function's body are looked up in what it was called with.
pub(super) struct Attributes<'a> {
    node: &'a NodeProto,
    given: Option<Given<'a>>,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(node: &'a NodeProto, given: Option<Given<'a>>) -> Attributes<'a> {
        Attributes { node, given }
    }

    pub(super) fn find(&self, name: &str) -> Option<&'a AttributeProto> {
        let attribute = self.node.attribute.iter().find(|a| a.name == name)?;
        if attribute.ref_attr_name.is_empty() {
            return Some(attribute);
        }
        self.given.as_ref()?.get(attribute.ref_attr_name.as_str()).copied()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// All attributes, references resolved.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'a str, &'a AttributeProto)> {
        self.node.attribute.iter().filter_map(|a| Some((a.name.as_str(), self.find(&a.name)?)))
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        // The value 0 is left out of the file.
        self.find(name).map(|a| a.i.unwrap_or(0))
    }

    pub(super) fn int_or(&self, name: &str, default: i64) -> i64 {
        self.int(name).unwrap_or(default)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.int_or(name, 0) != 0
    }

    pub(super) fn float(&self, name: &str) -> Option<f32> {
        self.find(name).map(|a| a.f.unwrap_or(0.0))
    }

    pub(super) fn float_or(&self, name: &str, default: f32) -> f32 {
        self.float(name).unwrap_or(default)
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.find(name).map(|a| a.ints.as_slice())
    }

    pub(super) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.find(name).map(|a| a.floats.as_slice())
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, String> {
        let Some(attribute) = self.find(name) else { return Ok(None) };
        let bytes = attribute.s.as_deref().unwrap_or_default();
        std::str::from_utf8(bytes).map(Some).map_err(|_| format!("attribute `{name}` is not UTF-8"))
    }

    pub(super) fn text_or(&self, name: &str, default: &'static str) -> Result<&'a str, String> {
        Ok(self.text(name)?.unwrap_or(default))
    }

    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, String> {
        let Some(attribute) = self.find(name) else { return Ok(None) };
        let text = |bytes: &bytes::Bytes| {
            String::from_utf8(bytes.to_vec()).map_err(|_| format!("attribute `{name}` is not UTF-8"))
        };
        attribute.strings.iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// A list of counts, none of them negative.
    pub(super) fn counts(&self, name: &str) -> Result<Vec<usize>, String> {
        self.ints(name)
            .unwrap_or_default()
            .iter()
            .map(|&v| usize::try_from(v).map_err(|_| format!("attribute `{name}` holds {v}")))
            .collect()
    }

    pub(super) fn count_or(&self, name: &str, default: usize) -> Result<usize, String> {
        match self.int(name) {
            None => Ok(default),
            Some(v) => usize::try_from(v).map_err(|_| format!("attribute `{name}` is {v}")),
        }
    }

    pub(super) fn dtype(&self, name: &str) -> Result<Option<DType>, String> {
        let Some(number) = self.int(name).filter(|&n| n != 0) else { return Ok(None) };
        i32::try_from(number)
            .ok()
            .and_then(dtype)
            .map(Some)
            .ok_or_else(|| format!("attribute `{name}` is the type {number}, which is not supported"))
    }

    pub(super) fn tensor(&self, name: &str, file: &OnnxFile) -> Result<Option<Tensor>, String> {
        let Some(tensor) = self.find(name).and_then(|a| a.t.as_deref()) else { return Ok(None) };
        let read = if tensor.data_location == 0 { lone_tensor(tensor) } else { file.tensor(tensor) };
        read.map(Some).map_err(|e| e.chain())
    }

    pub(super) fn graph(&self, name: &str) -> Result<&'a GraphProto, String> {
        self.find(name).and_then(|a| a.g.as_deref()).ok_or_else(|| format!("attribute `{name}` is no graph"))
    }
}
