//! Why a model cannot be described.

/// One variant per thing that can be wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No description for this architecture.
    #[error("architecture `{name}` is not supported; known: {known}")]
    Architecture {
        /// As the file names it.
        name: String,
        /// All known names.
        known: String,
    },
    /// A hyper-parameter is missing or out of range.
    #[error("`{key}`: {what}")]
    Config {
        /// Its key.
        key: String,
        /// What is wrong, with value and limit.
        what: String,
    },
    /// A weight is missing or has the wrong shape or type.
    #[error("tensor `{name}`: {what}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A weight cannot be read.
    #[error("tensor `{name}` cannot be read")]
    Read {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: kun_formats::FormatError,
    },
    /// Operators without a description.
    #[error("operators are not supported: {}", operators.join("; "))]
    Operators {
        /// Each with its nodes.
        operators: Vec<String>,
    },
    /// A node of an ONNX model that is wrong in itself.
    #[error("node `{node}`: {what}")]
    Onnx {
        /// Operator and name.
        node: String,
        /// What is wrong.
        what: String,
    },
    /// The graph does not fit together.
    #[error("cannot build the graph")]
    Build(#[from] kun_graph::BuildError),
}
