//! Forms with files (`multipart/form-data`, RFC 7578), as browsers and curl send them.

use crate::error::Refusal;
use axum::http::{HeaderMap, header};

/// Parts of one form.
const MAX_PARTS: usize = 64;
/// Bytes of a part's header.
const MAX_PART_HEADER: usize = 4096;

/// One part of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) name: String,
    /// Whether it is a file.
    pub(crate) is_file: bool,
    /// The file's own name.
    pub(crate) filename: Option<String>,
    pub(crate) bytes: &'a [u8],
}

/// The boundary that the header states; `None` for other kinds of body.
pub(crate) fn boundary(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let (essence, parameters) = kind.split_once(';')?;
    if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    (1..=70).contains(&boundary.len()).then_some(boundary)
}

/// A parameter of `; name="value"; ..`.
fn parameter(text: &str, name: &str) -> Option<String> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([';', ' ', '\t']);
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim_end(), &after[end..])
            }
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = after;
    }
}

fn broken(what: &str) -> Refusal {
    Refusal::invalid("", format!("The form is broken: {what}.")).code("invalid_form")
}

fn find(bytes: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    let first = *wanted.first()?;
    let mut at = from;
    while let Some(next) = bytes.get(at..)?.iter().position(|byte| *byte == first) {
        if bytes[at + next..].starts_with(wanted) {
            return Some(at + next);
        }
        at += next + 1;
    }
    None
}

/// The parts of a form.
pub(crate) fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Part<'a>>, Refusal> {
    let opening = format!("--{boundary}");
    let delimiter = format!("\r\n--{boundary}");
    let mut parts = Vec::new();
    if !body.starts_with(opening.as_bytes()) {
        return Err(broken("it does not begin with its boundary"));
    }
    let mut at = opening.len();
    loop {
        match body.get(at..at + 2) {
            Some(b"--") => return Ok(parts),
            Some(b"\r\n") => at += 2,
            _ => return Err(broken("a boundary is cut off")),
        }
        if parts.len() == MAX_PARTS {
            return Err(broken("it has too many parts"));
        }
        let header_end =
            find(&body[..body.len().min(at + MAX_PART_HEADER)], b"\r\n\r\n", at.saturating_sub(2))
                .ok_or_else(|| broken("a part has no header"))?;
        let header = body.get(at..header_end).unwrap_or_default();
        let header = std::str::from_utf8(header).map_err(|_| broken("a header is no text"))?;
        let start = header_end + 4;
        let end = find(body, delimiter.as_bytes(), start).ok_or_else(|| broken("a part does not end"))?;
        parts.push(part(header, &body[start..end])?);
        at = end + delimiter.len();
    }
}

/// The part with such a header.
pub(crate) fn part<'a>(header: &str, bytes: &'a [u8]) -> Result<Part<'a>, Refusal> {
    let disposition = header.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    });
    let (_, parameters) = disposition
        .and_then(|value| value.split_once(';'))
        .ok_or_else(|| broken("a part has no `Content-Disposition`"))?;
    let name = parameter(parameters, "name").ok_or_else(|| broken("a part has no name"))?;
    let filename = parameter(parameters, "filename");
    Ok(Part { name, is_file: filename.is_some(), filename, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn parts_are_found_as_they_were_written() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\nb\r\n--x\r\n\
            content-disposition: form-data; filename=\"a;b.png\"; name=image\r\nContent-Type: image/png\r\n\r\n\
            \x89\r\n--\r\n--xx\r\n\r\n--x--\r\n";
        // `--xx` begins with the boundary: such a body is broken by its writer.
        assert!(parts(body, "x").is_err());
        let body = b"--y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\nb\r\n--y\r\n\
            content-disposition: form-data; filename=\"a;b.png\"; name=image\r\nContent-Type: image/png\r\n\r\n\
            \x89\r\n--\r\n--x\r\n--y--\r\n";
        let found = parts(body, "y").unwrap();
        assert_eq!(
            found[0],
            Part { name: "model".to_owned(), is_file: false, filename: None, bytes: b"a\r\nb" }
        );
        assert_eq!(
            found[1],
            Part {
                name: "image".to_owned(),
                is_file: true,
                filename: Some("a;b.png".to_owned()),
                bytes: b"\x89\r\n--\r\n--x"
            }
        );
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn broken_forms_are_refused() {
        let whole = b"--y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nabc\r\n--y--\r\n";
        assert_eq!(parts(whole, "y").map(|parts| parts.len()).ok(), Some(1));
        for end in 0..whole.len() - 4 {
            assert!(parts(&whole[..end], "y").is_err(), "{end}");
        }
        for bad in [
            &b"--y\r\n\r\n\r\nabc\r\n--y--"[..],
            b"--y\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--y--",
            b"--y\r\nContent-Disposition: form-data; name\r\n\r\nabc\r\n--y--",
            b"--y\r\nContent-Disposition: form-data; name=\"x\r\n\r\nabc\r\n--y--",
            b"--y\r\n\xff: x\r\n\r\nabc\r\n--y--",
        ] {
            assert!(parts(bad, "y").is_err(), "{}", String::from_utf8_lossy(bad));
        }
        let many = "--y\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n".repeat(65) + "--y--";
        assert!(parts(many.as_bytes(), "y").is_err());
    }

    #[test]
    fn boundaries_are_read() {
        let of = |kind: &'static str| {
            boundary(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        assert_eq!(of("multipart/form-data; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(of("Multipart/Form-Data; charset=x; Boundary=\"a b;c\"").as_deref(), Some("a b;c"));
        assert_eq!(of("multipart/form-data; boundary="), None);
        assert_eq!(of("multipart/form-data"), None);
        assert_eq!(of("application/json"), None);
    }
}
