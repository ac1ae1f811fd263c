//! Looks over a message before it is decoded: every length lies inside its parent, messages are not nested too deep, and
//! there are not so many that their structs would take many times the file's size in memory.

use crate::FormatError;

/// Deepest nesting of messages; a graph inside a graph takes three levels.
pub const MAX_DEPTH: u32 = 96;
/// Messages and strings that any file may have, whatever its size.
const SMALL_COUNT: u64 = 16_384;
/// Most messages and strings of a large file.
const MAX_COUNT: u64 = 4 << 20;

/// The messages whose fields matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ModelProto`.
    Model,
    /// `GraphProto`.
    Graph,
    /// `NodeProto`.
    Node,
    /// `AttributeProto`.
    Attribute,
    /// `TensorProto`.
    Tensor,
    /// `SequenceProto`.
    Sequence,
    /// `OptionalProto`.
    Optional,
    /// `FunctionProto`.
    Function,
    /// `ValueInfoProto`.
    ValueInfo,
    /// `TypeProto`.
    Type,
    /// A sequence or optional type.
    ElementType,
    /// A tensor type.
    TensorType,
    /// `TensorShapeProto`.
    Shape,
    /// `SparseTensorProto`.
    Sparse,
    /// A message without messages in it.
    Leaf,
}

impl Kind {
    /// The message that a field of bytes holds, if it is one.
    const fn child(self, field: u64) -> Option<Kind> {
        Some(match (self, field) {
            (Kind::Model, 7) => Kind::Graph,
            (Kind::Model, 25) => Kind::Function,
            (Kind::Graph, 1) | (Kind::Function, 7) => Kind::Node,
            (Kind::Graph, 5) => Kind::Tensor,
            (Kind::Graph, 11 | 12) => Kind::ValueInfo,
            (Kind::Graph, 15) | (Kind::Attribute, 22) => Kind::Sparse,
            (Kind::Node, 5) | (Kind::Function, 11) => Kind::Attribute,
            (Kind::Attribute, 5 | 10) | (Kind::Sparse, 1 | 2) => Kind::Tensor,
            (Kind::Attribute, 6) => Kind::Graph,
            (Kind::Attribute, 14) | (Kind::ValueInfo, 2) | (Kind::ElementType, 1) => Kind::Type,
            (Kind::Type, 1) => Kind::TensorType,
            (Kind::Type, 4 | 9) => Kind::ElementType,
            (Kind::TensorType, 2) => Kind::Shape,
            (Kind::Sequence, 3) | (Kind::Optional, 3) => Kind::Tensor,
            (Kind::Sequence, 5) | (Kind::Optional, 5) => Kind::Sequence,
            (Kind::Sequence, 7) | (Kind::Optional, 7) => Kind::Optional,
            (Kind::Model, 8 | 14) | (Kind::Function, 9) | (Kind::Tensor, 13) | (Kind::Shape, 1) => Kind::Leaf,
            _ => return None,
        })
    }

    /// Its name in errors.
    const fn name(self) -> &'static str {
        match self {
            Kind::Model => "ModelProto",
            Kind::Graph => "GraphProto",
            Kind::Node => "NodeProto",
            Kind::Attribute => "AttributeProto",
            Kind::Tensor => "TensorProto",
            Kind::Sequence => "SequenceProto",
            Kind::Optional => "OptionalProto",
            Kind::Function => "FunctionProto",
            Kind::ValueInfo => "ValueInfoProto",
            Kind::Type => "TypeProto",
            Kind::ElementType => "TypeProto.Sequence",
            Kind::TensorType => "TypeProto.Tensor",
            Kind::Shape => "TensorShapeProto",
            Kind::Sparse => "SparseTensorProto",
            Kind::Leaf => "entry",
        }
    }
}

/// Checks the whole of `bytes` as a message of `kind`.
pub fn check(bytes: &[u8], kind: Kind) -> Result<(), FormatError> {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let limit = (SMALL_COUNT.saturating_add(length / 16)).min(MAX_COUNT);
    let mut scan = Scan { bytes, position: 0, count: 0, limit };
    scan.message(kind, length, 1)
}

struct Scan<'a> {
    bytes: &'a [u8],
    position: u64,
    count: u64,
    limit: u64,
}

impl Scan<'_> {
    fn fail<T>(&self, kind: Kind, what: impl Into<String>) -> Result<T, FormatError> {
        Err(FormatError::Wire { field: kind.name(), offset: self.position, what: what.into() })
    }

    fn byte(&mut self, kind: Kind, end: u64) -> Result<u8, FormatError> {
        let at = usize::try_from(self.position).ok();
        match at.and_then(|at| self.bytes.get(at)) {
            Some(&byte) if self.position < end => {
                self.position = self.position.saturating_add(1);
                Ok(byte)
            }
            _ => self.fail(kind, "it ends inside a field"),
        }
    }

    fn varint(&mut self, kind: Kind, end: u64) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(kind, end)?;
            value |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        self.fail(kind, "a number of more than 64 bits")
    }

    fn skip(&mut self, kind: Kind, length: u64, end: u64) -> Result<(), FormatError> {
        match self.position.checked_add(length) {
            Some(after) if after <= end => {
                self.position = after;
                Ok(())
            }
            _ => self.fail(
                kind,
                format!("a field of {length} bytes, {} are left", end.saturating_sub(self.position)),
            ),
        }
    }

    fn message(&mut self, kind: Kind, end: u64, depth: u32) -> Result<(), FormatError> {
        if depth > MAX_DEPTH {
            return Err(FormatError::Depth {
                field: kind.name().to_owned(),
                offset: self.position,
                declared: depth,
                limit: MAX_DEPTH,
            });
        }
        while self.position < end {
            let tag = self.varint(kind, end)?;
            match tag & 7 {
                0 => {
                    self.varint(kind, end)?;
                }
                1 => self.skip(kind, 8, end)?,
                5 => self.skip(kind, 4, end)?,
                2 => {
                    let length = self.varint(kind, end)?;
                    let start = self.position;
                    self.skip(kind, length, end)?;
                    self.count = self.count.saturating_add(1);
                    if self.count > self.limit {
                        return Err(FormatError::Limit {
                            field: "messages and strings".to_owned(),
                            offset: start,
                            declared: self.count,
                            limit: self.limit,
                        });
                    }
                    if let Some(child) = kind.child(tag >> 3) {
                        let after = self.position;
                        self.position = start;
                        self.message(child, after, depth.saturating_add(1))?;
                    }
                }
                _ => return self.fail(kind, format!("wire type {}", tag & 7)),
            }
        }
        Ok(())
    }
}
