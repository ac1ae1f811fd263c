//! Labels that a model was not trained on: as hypotheses that the text entails (arXiv:1909.00161), or by how near a
//! text and a label lie.

use crate::TaskError;
use crate::scores::{cosine, softmax};

/// The template of `transformers`.
pub const NLI_TEMPLATE: &str = "This example is {}.";
/// Label texts for models that embed.
pub const EMBEDDING_TEMPLATE: &str = "{}";
/// Sentence embedders are trained with the softmax of 20 times the cosine (arXiv:1908.10084's successors; the default
/// of sentence-transformers' MultipleNegativesRankingLoss).
const COSINE_SCALE: f32 = 20.0;

/// One text per label.
///
/// # Errors
/// [`TaskError::Input`] if `template` has no `{}` or there is no label.
pub fn hypotheses(template: &str, labels: &[String]) -> Result<Vec<String>, TaskError> {
    if !template.contains("{}") {
        return Err(TaskError::Input {
            what: format!("the template `{template}` has no {{}} for the label"),
        });
    }
    if labels.is_empty() {
        return Err(TaskError::Input { what: "no labels".to_owned() });
    }
    Ok(labels.iter().map(|label| template.replacen("{}", label, 1)).collect())
}

/// Which outputs of a natural-language-inference head say yes and no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NliHead {
    /// The hypothesis follows.
    pub entailment: usize,
    /// Its opposite follows.
    pub contradiction: usize,
}

impl NliHead {
    /// Finds them by the names of the labels; `None` if no label is one of entailment.
    pub fn of(labels: &[String]) -> Option<NliHead> {
        let find = |start: &str| labels.iter().position(|l| l.to_lowercase().starts_with(start));
        let entailment = find("entail")?;
        // Where nothing is called so, `transformers` takes the other end of the list.
        let other = if entailment == 0 { labels.len() - 1 } else { 0 };
        let contradiction = find("contradict").or_else(|| find("not_entail")).unwrap_or(other);
        (labels.len() > 1).then_some(NliHead { entailment, contradiction })
    }

    /// Scores of labels from the logits of their hypotheses, each `[labels of the head]`. With `multi`, or one label
    /// only, each label's score is its entailment against its contradiction; else they add up to 1.
    pub fn scores(&self, logits: &[Vec<f32>], multi: bool) -> Vec<f32> {
        let at = |row: &Vec<f32>, place: usize| row.get(place).copied().unwrap_or(f32::NEG_INFINITY);
        if multi || logits.len() == 1 {
            let yes = |row| softmax(&[at(row, self.contradiction), at(row, self.entailment)])[1];
            return logits.iter().map(yes).collect();
        }
        softmax(&logits.iter().map(|row| at(row, self.entailment)).collect::<Vec<f32>>())
    }
}

/// Scores of labels from the embeddings of a text and of the labels: the softmax of 20 times the cosines, or with
/// `multi` the cosines themselves.
pub fn similarity_scores(text: &[f32], labels: &[Vec<f32>], multi: bool) -> Vec<f32> {
    let cosines: Vec<f32> = labels.iter().map(|label| cosine(text, label)).collect();
    if multi { cosines } else { softmax(&cosines.iter().map(|c| c * COSINE_SCALE).collect::<Vec<f32>>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn a_template_holds_the_label_once() {
        let labels = names(&["sport", "{}"]);
        assert_eq!(hypotheses("A {} {}", &labels).unwrap(), ["A sport {}", "A {} {}"]);
        assert!(hypotheses("none", &labels).is_err());
        assert!(hypotheses("{}", &[]).is_err());
    }

    #[test]
    fn the_head_is_found_by_name_whatever_its_order() {
        let head = |labels: &[&str]| NliHead::of(&names(labels));
        let found = |entailment, contradiction| Some(NliHead { entailment, contradiction });
        assert_eq!(head(&["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]), found(2, 0));
        assert_eq!(head(&["entailment", "neutral", "contradiction"]), found(0, 2));
        assert_eq!(head(&["entailment", "not_entailment"]), found(0, 1));
        assert_eq!(head(&["POSITIVE", "NEGATIVE"]), None);
        assert_eq!(head(&["entailment"]), None);
    }

    #[test]
    fn similarity_ranks_by_cosine() {
        let scores = similarity_scores(&[1.0, 0.0], &[vec![2.0, 0.0], vec![0.0, 1.0], vec![0.0, 0.0]], false);
        assert!(scores[0] > 0.99 && (scores.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(similarity_scores(&[1.0, 0.0], &[vec![2.0, 0.0], vec![0.0, 0.0]], true), [1.0, 0.0]);
    }
}
