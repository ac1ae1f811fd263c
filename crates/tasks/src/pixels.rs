//! Pictures as people have them, and the geometry between a picture and a network's input.

pub mod boxes;
pub mod decode;
pub mod draw;
pub mod encode;
pub mod fit;
pub mod image;
pub mod map;
pub mod masks;
pub mod resize;
pub mod tiles;

pub use boxes::Box2;
pub use decode::{DecodeLimits, Decoded, decode};
pub use encode::{FileKind, encode};
pub use image::{Image, Samples};
pub use map::Map;
pub use masks::Mask;
pub use resize::Filter;

/// Why a picture cannot be read, made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PixelError {
    /// The bytes are none of the formats that are read.
    #[error("not a picture that can be read; PNG, JPEG, WebP, BMP, GIF and TIFF are")]
    Format,
    /// It is larger than the limit, by its own header; nothing was decoded.
    #[error(
        "{width}x{height} pixels are {megapixels:.1} megapixels; the limit is {limit} (--max-megapixels)"
    )]
    TooLarge {
        /// Pixels in a row.
        width: u64,
        /// Rows.
        height: u64,
        /// Millions of pixels.
        megapixels: f64,
        /// The most that is read, in millions.
        limit: usize,
    },
    /// It has no pixels or an impossible size.
    #[error("{width}x{height} pixels is no picture")]
    Size {
        /// Pixels in a row.
        width: u64,
        /// Rows.
        height: u64,
    },
    /// A kind of pixel that is not read.
    #[error("{what} pictures are not read")]
    Color {
        /// The kind.
        what: String,
    },
    /// The file is cut off or broken.
    #[error("the picture is broken: {what}")]
    Broken {
        /// What the decoder says.
        what: String,
    },
    /// Decoding would take more memory than the limit allows.
    #[error("decoding takes more memory than {limit_bytes} bytes")]
    Memory {
        /// The limit.
        limit_bytes: u64,
    },
    /// Samples that do not fill the size.
    #[error("{samples} samples do not fill {width}x{height} pixels of {channels}")]
    Samples {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Samples of a pixel.
        channels: usize,
        /// Samples given.
        samples: usize,
    },
    /// The picture cannot be written.
    #[error("cannot write {kind}: {what}")]
    Encode {
        /// The format.
        kind: &'static str,
        /// Why.
        what: String,
    },
}
