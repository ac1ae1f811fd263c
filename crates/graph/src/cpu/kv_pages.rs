//! The pages of the key/value cache: storage only; which sequence owns which page is the caller's affair.

use crate::cpu::shared::Block;
use kun_kernels::attention::KvLayout;

/// Where a layer's part of every page lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerPages {
    /// The layer as the graph counts it.
    pub(crate) layer: usize,
    /// Byte offset inside a page.
    pub(crate) offset: usize,
    /// Layout of the part.
    pub(crate) layout: KvLayout,
}

/// All pages, `[page][layer]`: a short sequence touches the memory of its own pages only.
#[derive(Debug)]
pub(crate) struct KvPages {
    block: Block,
    page_bytes: usize,
}

impl KvPages {
    pub(crate) fn new(block: Block, page_bytes: usize) -> KvPages {
        KvPages { block, page_bytes }
    }

    /// The part of `page` that holds key/value head `head` of a layer.
    pub(crate) fn head(&self, layer: &LayerPages, page: u32, head: usize) -> &[u8] {
        self.block.bytes(self.range(layer, page, head))
    }

    /// Where [`KvPages::head`] is, whoever writes there meanwhile.
    pub(crate) fn head_address(&self, layer: &LayerPages, page: u32, head: usize) -> *const u8 {
        self.block.address(self.range(layer, page, head).start)
    }

    /// As [`KvPages::head`], for the one task that writes it.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn head_mut(&self, layer: &LayerPages, page: u32, head: usize) -> &mut [u8] {
        self.block.bytes_mut(self.range(layer, page, head))
    }

    /// Makes page `to` what page `from` is.
    pub(crate) fn copy(&mut self, from: u32, to: u32) {
        let range = |page: u32| page as usize * self.page_bytes..(page as usize + 1) * self.page_bytes;
        self.block.bytes_mut(range(to)).copy_from_slice(self.block.bytes(range(from)));
    }

    fn range(&self, layer: &LayerPages, page: u32, head: usize) -> std::ops::Range<usize> {
        let start = page as usize * self.page_bytes + layer.offset;
        let range = layer.layout.head_range(head);
        start + range.start..start + range.end
    }
}
