//! What stands on top of an encoder, and what comes out.

use kun_graph::UnaryOp;
use kun_graph::graph;

/// How the rows of a text become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The first token's.
    First,
    /// The last token's.
    Last,
    /// Their mean.
    Mean,
    /// Their sum divided by the root of their number.
    MeanRoot,
    /// The largest value of each column.
    Max,
    /// Their mean with weights 1, 2, 3, ..
    Weighted,
}

impl Pooling {
    /// The graph's operation, for those that read more than one row.
    pub fn operation(self) -> Option<graph::Pool> {
        match self {
            Pooling::First | Pooling::Last => None,
            Pooling::Mean => Some(graph::Pool::Mean),
            Pooling::MeanRoot => Some(graph::Pool::MeanRoot),
            Pooling::Max => Some(graph::Pool::Max),
            Pooling::Weighted => Some(graph::Pool::Weighted),
        }
    }
}

/// A linear layer before a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dense {
    /// Its module.
    pub name: &'static str,
    /// Whether it counts as part of the encoder, whose name then stands before it.
    pub inside: bool,
    /// Whether it has a bias.
    pub bias: bool,
    /// What follows.
    pub function: Option<UnaryOp>,
}

/// What the heads of an architecture are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadNames {
    /// What the classifier of whole texts reads.
    pub pooling: Pooling,
    /// What stands before the classifier of whole texts.
    pub before: Option<Dense>,
    /// A norm after that.
    pub norm: Option<&'static str>,
    /// Both stand before the classifiers of tokens, too.
    pub before_tokens: bool,
    /// The classifier of whole texts.
    pub sequence: &'static str,
    /// The classifier of tokens.
    pub tokens: &'static str,
    /// The classifier of beginnings and ends of answers.
    pub span: &'static str,
}

impl HeadNames {
    /// BERT's: the pooler before the classifier.
    pub const BERT: HeadNames = HeadNames {
        pooling: Pooling::First,
        before: Some(Dense { name: "pooler.dense", inside: true, bias: true, function: Some(UnaryOp::Tanh) }),
        norm: None,
        before_tokens: false,
        sequence: "classifier",
        tokens: "classifier",
        span: "qa_outputs",
    };
    /// RoBERTa's: both layers in the classifier.
    pub const ROBERTA: HeadNames = HeadNames {
        before: Some(Dense {
            name: "classifier.dense",
            inside: false,
            bias: true,
            function: Some(UnaryOp::Tanh),
        }),
        sequence: "classifier.out_proj",
        ..HeadNames::BERT
    };

    /// The same with another pooling.
    pub fn pooled_by(self, pooling: Pooling) -> HeadNames {
        HeadNames { pooling, ..self }
    }
}

/// A dense layer of a sentence-transformers folder.
#[derive(Clone, Debug, PartialEq)]
pub struct SentenceDense {
    /// The module's folder, which its tensors' names begin with.
    pub path: String,
    /// Width of its input.
    pub from: usize,
    /// Width of its output.
    pub to: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// What follows.
    pub function: Option<UnaryOp>,
}

/// What stands on top.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// One vector per text: output `embedding`.
    Embedding {
        /// How rows become one.
        pooling: Pooling,
        /// Layers after that.
        dense: Vec<SentenceDense>,
        /// Whether the vector is brought to length 1.
        normalize: bool,
    },
    /// Scores of labels per text: output `logits` `[L]`.
    Sequence {
        /// `L`.
        labels: usize,
    },
    /// Scores of labels per token: output `logits` `[T, L]`.
    Tokens {
        /// `L`.
        labels: usize,
    },
    /// Scores of being the beginning and the end of the answer: output `logits` `[T, 2]`.
    Span,
}

/// Tokens whose likeliness after a text is the answer, for decoders that rank: `logit(yes) - logit(no)`, or `logit(yes)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judge {
    /// Says that a document answers the query.
    pub yes: u32,
    /// Says that it does not.
    pub no: Option<u32>,
}

/// Where a decoder's classifier of whole texts comes from; it reads the last token's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scorer {
    /// A matrix, one row per label.
    Rows(String),
    /// One row of a matrix, less another.
    Difference {
        /// The matrix.
        table: String,
        /// The row.
        yes: usize,
        /// The other.
        no: Option<usize>,
    },
}
