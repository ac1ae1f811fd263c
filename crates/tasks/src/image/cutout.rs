//! The background made transparent.

use crate::pixels::{Image, Map, PixelError};

/// The picture with the foreground's probability as its alpha; alpha it had stays in force. 16 bits stay 16 bits.
///
/// # Errors
/// Those of [`Image::new`], such as for a matte of another size.
pub fn cut_out(image: &Image, matte: &Map) -> Result<Image, PixelError> {
    let colors = if image.is_gray() { 1 } else { 3 };
    let mut planes: Vec<Vec<f32>> = (0..colors).map(|c| image.plane(c)).collect();
    let mut alpha: Vec<f32> = matte.values().iter().map(|v| v * 255.0).collect();
    if let Some(old) = image.alpha() {
        alpha.iter_mut().zip(old).for_each(|(a, old)| *a *= old / 255.0);
    }
    planes.push(alpha);
    Image::from_planes(image.width(), image.height(), &planes, image.bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::Samples;

    #[test]
    fn the_matte_becomes_alpha_and_old_alpha_stays() {
        let image = Image::new(2, 1, 4, Samples::U8(vec![9, 8, 7, 255, 6, 5, 4, 100])).unwrap();
        let matte = Map::new(2, 1, vec![1.0, 0.5]).unwrap();
        let cut = cut_out(&image, &matte).unwrap();
        assert_eq!(cut.samples(), &Samples::U8(vec![9, 8, 7, 255, 6, 5, 4, 50]));
        let gray = Image::new(2, 1, 1, Samples::U16(vec![1, 2])).unwrap();
        assert_eq!(cut_out(&gray, &matte).unwrap().samples(), &Samples::U16(vec![1, 65_535, 2, 32_768]));
        assert!(cut_out(&gray, &Map::new(1, 1, vec![0.0]).unwrap()).is_err());
    }
}
