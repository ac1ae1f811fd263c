//! The picture of a request: its bytes, and its pixels within bounds.

use crate::App;
use crate::error::{Kind, Refusal};
use crate::http::base64;
use crate::routes::Call;
use crate::schema::{Field, Shape, TEXT, required};
use kun_engine::Tenant;
use kun_engine::tasks::pixels::decode::{Header, header};
use kun_engine::tasks::pixels::{DecodeLimits, Image, PixelError, decode};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

const IN_OBJECT: &[&[Field]] = &[&[required("url", TEXT, "The same")]];
/// A text, or an object that holds it as `url`.
pub(crate) const SHAPE: Shape = Shape::Either(&[&TEXT, &Shape::Object(IN_OBJECT)]);
pub(crate) const ABOUT: &str = "The picture: base64, a data URL, or an address where the server allows them";

/// Longest side, in pixels.
pub(crate) const MAX_SIDE: u32 = 16_384;
/// Most pixels that one side may have for each of the other's.
const MAX_ASPECT: u32 = 200;
/// Bytes that a pixel takes while it is worked on: as it was decoded, and as numbers for the network.
const BYTES_PER_PIXEL: u64 = 16;
/// Bytes that all pictures in work may take together, in MiB; one that takes more is worked on alone.
pub(crate) const DECODE_MIB: u32 = 512;

/// A decoded picture and its place in memory.
pub(crate) struct Picture {
    pub(crate) image: Arc<Image>,
    /// Of an animation only the first frame is used.
    pub(crate) first_frame: bool,
    _room: OwnedSemaphorePermit,
}

fn invalid(what: impl Into<String>) -> Refusal {
    Refusal::invalid("image", what).code("invalid_image")
}

/// The bytes of the picture that came with a request.
pub(crate) async fn bytes(call: &mut Call) -> Result<Vec<u8>, Refusal> {
    let file = call.file.take();
    found(call, file, "image").await?.ok_or_else(|| {
        let what = "Missing required parameter: `image`";
        Refusal::invalid("image", what).code("missing_required_parameter")
    })
}

/// The bytes of the mask that came with a request, if one did.
pub(crate) async fn mask_bytes(call: &mut Call) -> Result<Option<Vec<u8>>, Refusal> {
    let file = call.mask.take();
    found(call, file, "mask").await
}

/// A picture that came as a file or in a field.
async fn found(call: &Call, file: Option<Vec<u8>>, field: &str) -> Result<Option<Vec<u8>>, Refusal> {
    let stated = match call.get(field) {
        Some(Value::String(text)) => Some(text.as_str()),
        Some(object) => object["url"].as_str(),
        None => None,
    };
    match (file, stated) {
        (Some(_), Some(_)) => Err(invalid("The picture comes twice")),
        (Some(bytes), None) => Ok(Some(bytes)),
        (None, Some(text)) => {
            let text = text.to_owned();
            named(&call.app, call.tenant, &text).await.map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// The bytes of a picture in base64, in a data URL, or at an address.
pub(crate) async fn named(app: &Arc<App>, tenant: Tenant, text: &str) -> Result<Vec<u8>, Refusal> {
    let scheme = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    if scheme.starts_with("http://") || scheme.starts_with("https://") {
        return fetched(app, tenant, text).await;
    }
    let encoded = match text.strip_prefix("data:") {
        Some(data) => {
            let (kind, encoded) = data.split_once(',').ok_or_else(|| invalid("The data URL has no data"))?;
            if !kind.ends_with(";base64") {
                return Err(invalid("The data URL must be in base64"));
            }
            encoded
        }
        None => text,
    };
    base64::decode(encoded)
        .filter(|bytes| !bytes.is_empty())
        .ok_or_else(|| invalid("The picture is no base64"))
}

/// Addresses that one key may have fetched at once.
const FETCHES_AT_ONCE: usize = 4;

/// A place among the fetches of a key; given back when dropped.
struct Fetching(Arc<App>, Tenant);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.fetches(self.1, |count| *count = count.saturating_sub(1));
    }
}

/// The picture at an address, if the server fetches any.
async fn fetched(app: &Arc<App>, tenant: Tenant, address: &str) -> Result<Vec<u8>, Refusal> {
    let Some(fetcher) = app.fetcher.clone() else {
        let what = "Addresses of pictures are not followed (--allow-image-urls); send the picture itself";
        return Err(invalid(what));
    };
    let mut all = 0;
    app.fetches(tenant, |count| {
        *count += 1;
        all = *count;
    });
    let place = Fetching(app.clone(), tenant);
    if all > FETCHES_AT_ONCE {
        let what = format!("At most {FETCHES_AT_ONCE} pictures are fetched at once.");
        return Err(app.busy(Kind::TooMany, &what));
    }
    let address = address.to_owned();
    let fetched = Call::blocking(move || {
        let _place = place;
        fetcher.fetch(&address).map_err(|error| invalid(format!("The picture was not fetched: {error}")))
    })
    .await?;
    let kind = fetched.content_type.unwrap_or_default().to_ascii_lowercase();
    let is_picture = kind.starts_with("image/") || kind.is_empty() || kind == "application/octet-stream";
    if !is_picture {
        return Err(invalid("What was fetched is no picture"));
    }
    Ok(fetched.bytes)
}

/// Judges a picture by its header, waits for room and decodes it.
pub(crate) async fn decoded(app: &Arc<App>, bytes: Vec<u8>) -> Result<Picture, Refusal> {
    let Header { width, height, is_usual } = header(&bytes).map_err(broken)?;
    if !is_usual {
        return Err(invalid("Pictures are PNG, JPEG, WebP or GIF"));
    }
    let (long, short) = (width.max(height), width.min(height));
    if long > MAX_SIDE || long / short > MAX_ASPECT {
        let what = format!(
            "{width}x{height} pixels; at most {MAX_SIDE} a side are taken, and {MAX_ASPECT} times as many as on the other"
        );
        return Err(invalid(what));
    }
    let limits = DecodeLimits { megapixels: app.options.limits.image_megapixels };
    let megapixels = f64::from(width) * f64::from(height) / 1e6;
    if megapixels > limits.megapixels as f64 {
        let what = format!("{megapixels:.1} megapixels; at most {} are taken", limits.megapixels);
        return Err(invalid(what));
    }
    let wanted = u64::from(width) * u64::from(height) * BYTES_PER_PIXEL;
    let mib = u32::try_from(wanted >> 20).unwrap_or(u32::MAX).clamp(1, DECODE_MIB);
    let room = app.pixels.clone().acquire_many_owned(mib).await;
    let room = room.map_err(|_| Refusal::new(Kind::Unavailable, "The server is stopping."))?;
    Call::blocking(move || {
        let decoded = decode(&bytes, limits).map_err(broken)?;
        Ok(Picture { image: Arc::new(decoded.image), first_frame: decoded.first_frame, _room: room })
    })
    .await
}

/// What decoders say may hold anything: only what is known to be harmless is told.
fn broken(error: PixelError) -> Refusal {
    match error {
        PixelError::Format => invalid("Not a picture that can be read; PNG, JPEG, WebP and GIF are"),
        PixelError::Color { .. } => invalid("Pictures with this kind of pixel are not read"),
        PixelError::TooLarge { .. } | PixelError::Memory { .. } => invalid("The picture is too large"),
        _ => invalid("The picture is broken"),
    }
}
