//! What the tensors of encoders are called, as data. `{}` stands for the layer.

/// Where queries, keys and values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projections {
    /// Three matrices.
    Separate {
        /// Queries.
        query: &'static str,
        /// Keys.
        key: &'static str,
        /// Values.
        value: &'static str,
    },
    /// One matrix of queries above keys above values.
    Joined(&'static str),
}

/// Names of modules; a tensor is `PREFIX.MODULE.weight` or `.bias`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// What the encoder is called inside a model with a head; a folder without head leaves it out.
    pub root: &'static str,
    /// `[V, E]`.
    pub words: &'static str,
    /// `[P, E]`.
    pub positions: &'static str,
    /// `[types, E]`.
    pub types: &'static str,
    /// Norm of the embeddings.
    pub embedding_norm: &'static str,
    /// `[D, E]`, where embeddings are narrower than layers.
    pub embedding_projection: &'static str,
    /// Queries, keys, values.
    pub projections: Projections,
    /// Output of attention.
    pub attention_output: &'static str,
    /// Norm before or after attention.
    pub attention_norm: &'static str,
    /// Gate of the feed-forward, or its only input projection. The joined form of gate and up has both in this matrix.
    pub gate: &'static str,
    /// The projection that the gate is multiplied with; empty if there is none of its own.
    pub up: &'static str,
    /// Output of the feed-forward.
    pub down: &'static str,
    /// Norm before or after the feed-forward.
    pub ffn_norm: &'static str,
    /// Norm after the last layer; empty if there is none.
    pub final_norm: &'static str,
}

impl Names {
    /// BERT's own, which most others share.
    pub const BERT: Names = Names {
        root: "bert",
        words: "embeddings.word_embeddings",
        positions: "embeddings.position_embeddings",
        types: "embeddings.token_type_embeddings",
        embedding_norm: "embeddings.LayerNorm",
        embedding_projection: "embeddings_project",
        projections: Projections::Separate {
            query: "encoder.layer.{}.attention.self.query",
            key: "encoder.layer.{}.attention.self.key",
            value: "encoder.layer.{}.attention.self.value",
        },
        attention_output: "encoder.layer.{}.attention.output.dense",
        attention_norm: "encoder.layer.{}.attention.output.LayerNorm",
        gate: "encoder.layer.{}.intermediate.dense",
        up: "",
        down: "encoder.layer.{}.output.dense",
        ffn_norm: "encoder.layer.{}.output.LayerNorm",
        final_norm: "",
    };
}
