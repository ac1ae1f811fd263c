/// Gives `$with` the folders of `testdata/encoders` that fuzzing begins with; a seed's first byte counts them.
macro_rules! encoders {
    ($with:ident) => {
        $with!(
            "sentence_mean",
            "bert_sequence",
            "distilbert_span",
            "mpnet",
            "albert_sequence",
            "modernbert_tokens",
            "nomic_bert",
            "deberta_v2_tokens",
            "qwen3_logit_score",
            "jina_v2"
        )
    };
}
