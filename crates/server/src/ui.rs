//! The page, inside the binary.

use crate::routes::{Call, Reply, text_response};
use axum::http::{HeaderValue, header};

/// Nothing from outside, nothing inline, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

fn file(kind: &'static str, text: &'static str) -> Reply {
    Box::pin(async move {
        let mut response = text_response(kind, text);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
        Ok(response)
    })
}

pub(crate) fn page(_call: Call) -> Reply {
    file("text/html; charset=utf-8", include_str!("../../../web/index.html"))
}
pub(crate) fn script(_call: Call) -> Reply {
    file("text/javascript; charset=utf-8", include_str!("../../../web/app.js"))
}
pub(crate) fn play(_call: Call) -> Reply {
    file("text/javascript; charset=utf-8", include_str!("../../../web/play.js"))
}
pub(crate) fn pictures(_call: Call) -> Reply {
    file("text/javascript; charset=utf-8", include_str!("../../../web/pictures.js"))
}
pub(crate) fn compare(_call: Call) -> Reply {
    file("text/javascript; charset=utf-8", include_str!("../../../web/compare.js"))
}
pub(crate) fn draw(_call: Call) -> Reply {
    file("text/javascript; charset=utf-8", include_str!("../../../web/draw.js"))
}
pub(crate) fn mask(_call: Call) -> Reply {
    file("text/javascript; charset=utf-8", include_str!("../../../web/mask.js"))
}
pub(crate) fn nodes(_call: Call) -> Reply {
    file("text/javascript; charset=utf-8", include_str!("../../../web/nodes.js"))
}
pub(crate) fn live(_call: Call) -> Reply {
    file("text/javascript; charset=utf-8", include_str!("../../../web/live.js"))
}
pub(crate) fn words(_call: Call) -> Reply {
    file("text/javascript; charset=utf-8", include_str!("../../../web/words.js"))
}
pub(crate) fn style(_call: Call) -> Reply {
    file("text/css; charset=utf-8", include_str!("../../../web/style.css"))
}
pub(crate) fn icon(_call: Call) -> Reply {
    file("image/svg+xml", include_str!("../../../web/icon.svg"))
}
