//! What can be wrong with a model file.

use kun_tensor::DType;
use std::fmt;
use std::path::PathBuf;

/// One variant per thing that can be wrong; each names field, offset, declared value and limit where they exist.
///
/// Names taken from a file are escaped and shortened, so that an error is safe to print on a terminal.
/// Offsets count bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum FormatError {
    /// The file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is wrong in one file; the source says what.
    #[error("{} is not usable", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<FormatError>,
    },

    // What kind of file this is.
    /// A file without content.
    #[error("{} is empty (0 bytes): the download may have been interrupted", path.display())]
    Empty { path: PathBuf },
    /// A kind of file that is known and not read.
    #[error("{} is {kind}: {advice}", path.display())]
    NotSupported { path: PathBuf, kind: &'static str, advice: &'static str },
    /// No kind of model file that is known.
    #[error("{} is no model file: it begins with {found}, a GGUF file begins with `GGUF`", path.display())]
    UnknownFormat { path: PathBuf, found: String },
    /// A folder without `config.json`.
    #[error("folder {} has no config.json: a model folder holds config.json and *.safetensors{hint}", path.display())]
    NoConfig { path: PathBuf, hint: String },
    /// A folder without weights that can be read.
    #[error("folder {} has no weights: expected model.safetensors or model.safetensors.index.json", path.display())]
    NoWeights { path: PathBuf },
    /// A folder with several weight files and no index that orders them.
    #[error(
        "folder {} holds {count} safetensors files ({names}) and no model.safetensors.index.json",
        path.display()
    )]
    ManyWeights { path: PathBuf, count: usize, names: String },
    /// A folder whose only weights are pickle files, which can run code when read.
    #[error(
        "folder {} holds only pickle weights (`{file}`), which can run code and are never read: \
         get the safetensors or GGUF version of this model, or write one where the file is trusted, with \
         transformers' `from_pretrained` and `save_pretrained`",
        path.display()
    )]
    Pickle { path: PathBuf, file: String },
    /// A name inside a model that leads out of its folder.
    #[error("`{field}` names the file `{name}`: only plain file names inside the model folder are opened")]
    UnsafeName { field: String, name: String },
    /// A link inside a model folder that leads out of it.
    #[error(
        "{} is a link out of the model folder: only the Hugging Face cache's links (snapshots to blobs) are followed",
        path.display()
    )]
    UnsafeLink { path: PathBuf },
    /// A file with a second name elsewhere, which a model folder could use to show a file of someone else.
    #[error("{} has {links} hard links, limit 1: copy the file instead", path.display())]
    HardLink { path: PathBuf, links: u64 },
    /// A device, pipe, socket or folder where a file should be.
    #[error("{} is no regular file", path.display())]
    NotRegular { path: PathBuf },

    // Sizes.
    /// The file ends before a field does.
    #[error("`{field}` at byte {offset} needs {needed} bytes, {left} are left in the file")]
    Truncated { field: String, offset: u64, needed: u64, left: u64 },
    /// A count or length above what is accepted.
    #[error("`{field}` at byte {offset} is {declared}, limit {limit}")]
    Limit { field: String, offset: u64, declared: u64, limit: u64 },
    /// A file above what is accepted of its kind.
    #[error("the file has {declared} bytes, limit {limit}")]
    FileTooLarge { declared: u64, limit: u64 },
    /// Arrays or objects inside one another too deep.
    #[error("`{field}` at byte {offset} is nested {declared} deep, limit {limit}")]
    Depth { field: String, offset: u64, declared: u32, limit: u32 },
    /// The system has no memory for a size that the file does hold.
    #[error("no memory for `{field}` of {needed} bytes")]
    OutOfMemory { field: String, needed: u64 },

    // GGUF.
    /// Not the magic.
    #[error("`magic` at byte 0 is {found}, expected `GGUF`")]
    Magic { found: String },
    /// A version that is not read.
    #[error("`version` at byte 4 is {declared}, supported are 2 and 3")]
    Version { declared: u32 },
    /// A file for big-endian machines.
    #[error("`version` at byte 4 is {declared:#010x}: a big-endian GGUF file; get the little-endian one")]
    BigEndian { declared: u32 },
    /// A number where a type should be.
    #[error("`{field}` at byte {offset} has value type {declared}, known are 0 to 12")]
    ValueType { field: String, offset: u64, declared: u32 },
    /// A byte other than 0 or 1.
    #[error("`{field}` at byte {offset} is {declared}, a bool is 0 or 1")]
    Bool { field: String, offset: u64, declared: u8 },
    /// Text that is not UTF-8.
    #[error("`{field}` at byte {offset} is not UTF-8 from its byte {valid} on")]
    NotUtf8 { field: String, offset: u64, valid: u64 },
    /// The same name twice.
    #[error("{what} `{name}` is there twice, the second time at byte {offset}")]
    Duplicate { what: &'static str, name: String, offset: u64 },
    /// An alignment that cannot be one.
    #[error("`general.alignment` is {declared}, expected a power of two up to {limit}")]
    Alignment { declared: u32, limit: u32 },
    /// A tensor of a type that is not read.
    #[error("tensor `{name}` has type {found}, supported are {supported}")]
    TensorType { name: String, found: String, supported: &'static str },
    /// Dimensions whose product is beyond any file.
    #[error("tensor `{name}`: the product of the dimensions {shape:?} is beyond 2^63")]
    ShapeOverflow { name: String, shape: Vec<u64> },
    /// Rows that do not fill blocks.
    #[error("tensor `{name}`: rows of {row} elements do not fill blocks of {block_len} ({dtype})")]
    PartialBlock { name: String, dtype: DType, row: u64, block_len: u64 },
    /// Data that does not begin on the file's alignment.
    #[error("tensor `{name}`: data offset {offset} is no multiple of the alignment {alignment}")]
    Misaligned { name: String, offset: u64, alignment: u64 },
    /// Data beyond the file.
    #[error("tensor `{name}`: data ends at byte {end}, file has {len}")]
    TensorOutOfBounds { name: String, end: u64, len: u64 },
    /// Two tensors that share bytes.
    #[error("tensor `{name}`: data from byte {offset} overlaps tensor `{other}`, which ends at byte {end}")]
    Overlap { name: String, offset: u64, other: String, end: u64 },
    /// A part of a split file that is not the first.
    #[error("this is part {part} of a split model: open {}", first.display())]
    NotFirstPart { part: u64, first: PathBuf },
    /// A part of a split file whose name does not say so.
    #[error("`split.count` is {count}, but the file's name does not end in `{expected}`")]
    PartName { count: u64, expected: String },
    /// A part that says something else than its name or the other parts.
    #[error("`{field}` is {declared}, expected {expected}")]
    PartMismatch { field: &'static str, declared: u64, expected: u64 },

    // Metadata and config values.
    /// A key that must be there.
    #[error("`{key}` is missing")]
    MissingKey { key: String },
    /// A value of another type.
    #[error("`{key}` is {found}, expected {wanted}")]
    WrongType { key: String, found: String, wanted: &'static str },
    /// A number that does not fit.
    #[error("`{key}` is {value}, beyond {wanted}")]
    OutOfRange { key: String, value: String, wanted: &'static str },

    // ONNX.
    /// Bytes that are no protobuf message, or not the one expected.
    #[error("`{field}` at byte {offset} is no valid protobuf: {what}")]
    Wire { field: &'static str, offset: u64, what: String },
    /// A model without a graph: not an ONNX model, or one cut short.
    #[error("the file holds no ONNX graph")]
    NoGraph,
    /// A tensor whose fields disagree.
    #[error("tensor `{name}`: {what}")]
    OnnxTensor { name: String, what: String },
    /// Not an array file of NumPy's that is read.
    #[error("the NumPy file is not read: {what}")]
    Npy { what: String },

    // safetensors and JSON.
    /// The header does not start as JSON object.
    #[error("`header` at byte 8 begins with {found}, expected `{{`")]
    HeaderStart { found: String },
    /// Not the JSON that it should be.
    #[error("`{field}` is not valid from byte {offset} on")]
    Json {
        field: String,
        offset: u64,
        #[source]
        source: serde_json::Error,
    },
    /// JSON of so many tiny values that it would take many times its size in memory.
    #[error("`{field}` would take about {declared} bytes of memory, limit {limit}")]
    Amplified { field: String, declared: u64, limit: u64 },
    /// A range that ends before it begins.
    #[error("tensor `{name}`: `data_offsets` are {begin} to {end}")]
    Reversed { name: String, begin: u64, end: u64 },
    /// A range of another size than type and dimensions give.
    #[error("tensor `{name}`: `data_offsets` span {declared} bytes, {dtype} of its shape takes {expected}")]
    DataSize { name: String, dtype: DType, declared: u64, expected: u64 },
    /// Bytes that belong to no tensor.
    #[error("tensor `{name}`: `data_offsets` begin at {offset}, the tensor before ends at {expected}")]
    Hole { name: String, offset: u64, expected: u64 },
    /// Bytes after the last tensor, or tensors after the last byte.
    #[error("`data_offsets` end at {declared}, the file holds {actual} bytes of data")]
    DataLength { declared: u64, actual: u64 },
    /// An index that promises a tensor its file does not hold.
    #[error("`weight_map` puts tensor `{name}` in `{file}`, which does not hold it")]
    NotInShard { name: String, file: String },
}

impl FormatError {
    /// This error, found in the file at `path`.
    pub(crate) fn in_file(self, path: &std::path::Path) -> FormatError {
        match self {
            FormatError::Io { .. } | FormatError::File { .. } => self,
            source => FormatError::File { path: path.to_owned(), source: Box::new(source) },
        }
    }

    /// The whole chain on one line, outermost first.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

/// Longest part of a name from a file that an error repeats, in characters.
const SHOWN_CHARS: usize = 80;

/// `name` as an error may show it: no control characters, not endless.
pub(crate) fn shown(name: &str) -> String {
    let mut text: String =
        name.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).filter(|c| !c.is_control()).collect();
    if name.chars().nth(SHOWN_CHARS).is_some() {
        text.push_str("..");
    }
    text
}

/// The first bytes of a file as an error may show them.
pub(crate) fn shown_bytes(bytes: &[u8]) -> String {
    format!("`{}`", bytes.escape_ascii())
}

/// The name of what is being read: a field, or an element of one.
#[derive(Clone, Copy)]
pub(crate) struct Field<'a> {
    pub name: &'a str,
    pub element: Option<u64>,
}

impl<'a> Field<'a> {
    pub fn new(name: &'a str) -> Field<'a> {
        Field { name, element: None }
    }

    pub fn element(name: &'a str, index: u64) -> Field<'a> {
        Field { name, element: Some(index) }
    }
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.name))?;
        match self.element {
            Some(index) => write!(f, "[{index}]"),
            None => Ok(()),
        }
    }
}
