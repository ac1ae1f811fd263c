//! What steps of attention share: tables of turns, biases by distance, pages of the cache.

use super::{Draft, Failure, Planner, slot};
use crate::cpu::kv_pages::LayerPages;
use crate::cpu::plan::absorb::HeadChain;
use crate::cpu::plan::{BackwardBias, DistanceTable, HeadWork, RopeTable, Slot, Step, Turn, Work};
use crate::graph::{AttentionSpec, DistanceBias, RopeSpec, ValueId};
use kun_kernels::attention::KvLayout;

impl Planner<'_> {
    pub(super) fn turn(&mut self, rope: &RopeSpec, positions: ValueId) -> Turn {
        let known = self.tables.iter().position(|(table, at, weight)| {
            *at == positions
                && *weight == rope.inverse_frequencies
                && table.magnitude.to_bits() == rope.magnitude.to_bits()
        });
        let table = known.unwrap_or_else(|| {
            let half = rope.rotary_dim / 2;
            let rows = self.limits.elements(&self.graph.value(positions).shape).unwrap_or(0);
            let bytes = rows * half * 4;
            let (cos, sin) = (self.extra(bytes), self.extra(bytes));
            let frequencies = self.constant(rope.inverse_frequencies);
            let table = RopeTable {
                positions: self.input_index(positions),
                frequencies,
                magnitude: rope.magnitude,
                half,
                cos,
                sin,
            };
            self.tables.push((table, positions, rope.inverse_frequencies));
            let work = Work::RopeTable(self.tables.len() - 1);
            self.table_drafts.push(Draft {
                step: Step { name: "rope table".into(), work, once: false },
                reads: vec![slot(positions)],
                writes: vec![cos, sin],
                in_place: None,
            });
            self.tables.len() - 1
        });
        Turn { table, rotary_dim: rope.rotary_dim, style: rope.style }
    }

    pub(super) fn head_work(&mut self, chain: &HeadChain) -> HeadWork {
        let norm = chain.norm.map(|(weight, eps)| (self.constant(weight), eps));
        let turn = chain.rope.as_ref().map(|(spec, positions)| self.turn(spec, *positions));
        HeadWork { norm, turn }
    }

    pub(super) fn table_slots(&self, work: &HeadWork) -> Vec<Slot> {
        work.turn.map_or_else(Vec::new, |turn| {
            let table = &self.tables[turn.table].0;
            vec![table.cos, table.sin]
        })
    }

    /// Position of the biases among those worked out once a run.
    pub(super) fn distance_table(&mut self, bias: DistanceBias, heads: usize) -> Result<usize, Failure> {
        if let Some(known) = self.distances.iter().position(|table| table.bias == bias) {
            return Ok(known);
        }
        let bytes = self.options.max_tokens.checked_mul(heads).and_then(|n| n.checked_mul(2 * 4));
        let out = self.extra(bytes.ok_or_else(|| "the biases overflow".to_owned())?);
        let constant = self.constant(bias.weight());
        self.distances.push(DistanceTable { bias, heads, constant, out });
        let work = Work::DistanceTable(self.distances.len() - 1);
        self.table_drafts.push(Draft {
            step: Step { name: "distance biases".into(), work, once: false },
            reads: Vec::new(),
            writes: vec![out],
            in_place: None,
        });
        Ok(self.distances.len() - 1)
    }

    pub(super) fn backward(&mut self, bias: DistanceBias, heads: usize) -> usize {
        if let Some(known) = self.backward.iter().position(|b| b.bias == bias && b.heads == heads) {
            return known;
        }
        let constant = self.constant(bias.weight());
        self.backward.push(BackwardBias { bias, heads, constant });
        self.backward.len() - 1
    }

    pub(super) fn layer_pages(&mut self, spec: &AttentionSpec) -> Result<LayerPages, Failure> {
        let layout = KvLayout::new(self.options.kv.dtype, spec.kv_heads, spec.head_dim)?;
        if let Some(known) = self.layers.iter().find(|known| known.layer == spec.layer) {
            return Err(format!("layer {} of the cache is used twice", known.layer).into());
        }
        let pages = LayerPages { layer: spec.layer, offset: self.page_bytes, layout };
        self.page_bytes = layout
            .page_bytes()
            .checked_add(self.page_bytes)
            .ok_or_else(|| "the cache overflows".to_owned())?;
        self.layers.push(pages);
        Ok(pages)
    }
}
