use super::*;
use crate::pixels::encode::{FileKind, encode};
use kun_testkit::golden;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(golden::testdata().join("vision/pictures").join(name)).unwrap()
}

fn limits(megapixels: usize) -> DecodeLimits {
    DecodeLimits { megapixels }
}

/// The colour of a pixel of the 8-bit RGB form.
fn pixel(image: &Image, x: usize, y: usize) -> [u8; 3] {
    let at = (y * image.width() + x) * 3;
    image.to_rgb8()[at..at + 3].try_into().unwrap()
}

fn is_red(image: &Image, x: usize, y: usize) -> bool {
    let [r, g, b] = pixel(image, x, y);
    r > 200 && g < 70 && b < 70
}

#[test]
fn exif_turns_pictures_upright() {
    // The red corner lies at the upper left of the stored pixels; where it belongs after turning, by EXIF's table.
    let corners = [(2, 2), (21, 2), (21, 13), (2, 13), (2, 2), (13, 2), (13, 21), (2, 21)];
    for (turn, (x, y)) in (1..).zip(corners) {
        let image = decode(&file(&format!("turn{turn}.jpg")), limits(1)).unwrap().image;
        let size = if turn < 5 { (24, 16) } else { (16, 24) };
        assert_eq!((image.width(), image.height()), size, "{turn}");
        assert!(is_red(&image, x, y), "{turn}: {:?}", pixel(&image, x, y));
    }
}

#[test]
fn unusual_files_are_read_or_refused_with_a_reason() {
    for name in ["progressive.jpg", "palette.png", "lossy.webp"] {
        let image = decode(&file(name), limits(1)).unwrap().image;
        assert_eq!((image.width(), image.height()), (24, 16), "{name}");
        assert!(is_red(&image, 2, 2), "{name}");
    }
    assert!(decode(&file("bits.png"), limits(1)).unwrap().image.is_gray());
    match decode(&file("cmyk.jpg"), limits(1)) {
        Ok(decoded) => assert!(is_red(&decoded.image, 2, 2), "{:?}", pixel(&decoded.image, 2, 2)),
        Err(error) => assert!(matches!(error, PixelError::Color { .. }), "{error}"),
    }
}

#[test]
fn of_an_animation_the_first_frame_is_taken_and_told() {
    for name in ["animated.gif", "animated.webp", "animated.png"] {
        let decoded = decode(&file(name), limits(1)).unwrap();
        assert!(decoded.first_frame, "{name}");
        assert_eq!(pixel(&decoded.image, 5, 5), [255, 0, 0], "{name}");
    }
    assert!(!decode(&file("turn1.jpg"), limits(1)).unwrap().first_frame);
}

fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u32).to_be_bytes().to_vec();
    out.extend(kind);
    out.extend(body);
    let checked = &out[4..];
    let crc = !checked.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    out.extend(crc.to_be_bytes());
    out
}

fn png(width: u32, height: u32, data: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let parts =
        [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), chunk(b"IDAT", data), chunk(b"IEND", &[])];
    parts.concat()
}

#[test]
fn headers_that_promise_too_much_are_refused_before_decoding() {
    let le = |v: u32| v.to_le_bytes();
    let mut bmp = b"BM".to_vec();
    bmp.extend([&le(54)[..], &le(0), &le(54), &le(40), &le(60_000), &le(60_000), &[1, 0, 24, 0]].concat());
    bmp.extend([0; 24]);
    let gif = [
        &b"GIF89a"[..],
        &[0xff, 0xff, 0xff, 0xff, 0x80, 0, 0],
        &[0; 6],
        &[0x2c, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0],
    ]
    .concat();
    // Start of frame: 8 bits, 65,500 x 65,500, three components.
    let jpeg =
        [
            &[
                0xff, 0xd8, 0xff, 0xc0, 0, 17, 8, 0xff, 0xdc, 0xff, 0xdc, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11,
                0,
            ][..],
            &[0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 63, 0, 0],
        ]
        .concat();
    // VP8L: 14 bits of width and height less one.
    let size = 16_000u32 | 16_000 << 14;
    let webp = [&b"RIFF"[..], &le(30), b"WEBPVP8L", &le(10), &[0x2f], &le(size), &[0; 5]].concat();
    let entry = |tag: u16, value: u32| [&tag.to_le_bytes()[..], &[4, 0], &le(1), &le(value)].concat();
    let mut tiff = [&b"II*\0"[..], &le(8), &[9, 0]].concat();
    for (tag, value) in [
        (256, 60_000),
        (257, 60_000),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 60_000),
        (279, u32::MAX),
    ] {
        tiff.extend(entry(tag, value));
    }
    tiff.extend(le(0));
    for (name, bytes) in [
        ("png", png(100_000, 100_000, &[])),
        ("png", png(9_000, 9_000, &[])),
        ("png", png(u32::MAX >> 1, 1, &[])),
        ("bmp", bmp),
        ("gif", gif),
        ("jpeg", jpeg),
        ("webp", webp),
        ("tiff", tiff),
    ] {
        let error = decode(&bytes, DecodeLimits::default()).unwrap_err();
        assert!(
            matches!(error, PixelError::TooLarge { .. } | PixelError::Memory { .. }),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn the_limit_is_the_callers() {
    let picture = encode(&Image::filled(1500, 1000, [1, 2, 3]), FileKind::Png).unwrap();
    assert!(decode(&picture, limits(2)).is_ok());
    let error = decode(&picture, limits(1)).unwrap_err();
    assert!(error.to_string().contains("1500x1000") && error.to_string().contains("limit is 1"), "{error}");
}

#[test]
fn broken_files_are_typed_errors() {
    assert!(matches!(decode(b"", limits(1)), Err(PixelError::Format)));
    assert!(matches!(decode(b"%PDF-1.7", limits(1)), Err(PixelError::Format)));
    assert!(decode(&png(0, 5, &[]), limits(1)).is_err());
    // A picture cut off anywhere, in every format, is an error or (JPEG) a picture with a grey rest.
    let image = Image::filled(40, 30, [200, 30, 90]);
    for kind in [FileKind::Png, FileKind::Jpeg, FileKind::WebP, FileKind::Bmp, FileKind::Tiff] {
        let whole = encode(&image, kind).unwrap();
        for cut in (0..whole.len()).step_by((whole.len() / 50).max(1)) {
            match decode(&whole[..cut], limits(1)) {
                Ok(decoded) => {
                    assert_eq!((decoded.image.width(), decoded.image.height()), (40, 30), "{kind:?} {cut}")
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

#[test]
fn decoding_stays_within_its_memory() {
    // 8,000 x 8,000 black pixels in a few hundred kB: legal, below 64 megapixels, and no more than its samples.
    let picture = encode(&Image::filled(4_000, 2_000, [0; 3]), FileKind::Png).unwrap();
    assert!(picture.len() < 100_000);
    assert_eq!(decode(&picture, limits(8)).unwrap().image.width(), 4_000);
}
