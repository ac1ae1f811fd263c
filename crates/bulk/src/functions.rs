//! The functions, one file per family.

mod answers;
mod duplicates;
mod embed;
mod generate;
mod hash;
mod judge;
mod kind;
mod loaded;
mod look;
mod texts;
mod write;

#[cfg(feature = "sql")]
pub(crate) use generate::prompt_parts;
pub use loaded::Loaded;

use crate::Registry;

/// Adds every function of this crate.
pub(crate) fn register(registry: &mut Registry) {
    registry.add(hash::Hash);
    registry.add(duplicates::Duplicates);
    for kind in texts::ALL {
        registry.add(kind);
    }
    registry.add(judge::Extract);
    for kind in [embed::EMBED, judge::RERANK, judge::CLASSIFY, judge::ANSWER, generate::GENERATE] {
        registry.add(kind);
    }
    for kind in [write::TRANSLATE, write::SUMMARIZE] {
        registry.add(kind);
    }
    for kind in look::ALL {
        registry.add(kind);
    }
}
