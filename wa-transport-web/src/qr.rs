//! Codes as pictures.

use std::io::Cursor;

use image::{GrayImage, ImageFormat, Luma};
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};

/// Pixels of one module of a picture.
const MODULE: u32 = 6;

/// White modules around a code, as the standard (ISO/IEC 18004) asks for.
const QUIET: u32 = 4;

/// A text that is too long for a QR code: more than 2,953 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text is too long for a QR code")]
pub struct TooLong;

fn code(payload: &str) -> Result<QrCode, TooLong> {
    QrCode::with_error_correction_level(payload, EcLevel::L).map_err(|_| TooLong)
}

/// The code as an SVG document.
///
/// # Errors
/// [`TooLong`].
pub fn svg(payload: &str) -> Result<String, TooLong> {
    Ok(code(payload)?
        .render::<svg::Color<'_>>()
        .min_dimensions(240, 240)
        .build())
}

/// The code as a PNG file.
///
/// # Errors
/// [`TooLong`].
pub fn png(payload: &str) -> Result<Vec<u8>, TooLong> {
    let code = code(payload)?;
    let width = u32::try_from(code.width()).expect("a QR code has at most 177 modules");
    let side = (width + 2 * QUIET) * MODULE;
    let picture = GrayImage::from_fn(side, side, |x, y| {
        let module = |at: u32| (at / MODULE).checked_sub(QUIET).filter(|module| *module < width);
        match (module(x), module(y)) {
            (Some(x), Some(y)) if code[(x as usize, y as usize)] == qrcode::Color::Dark => Luma([0]),
            _ => Luma([255]),
        }
    });
    let mut file = Cursor::new(Vec::new());
    picture
        .write_to(&mut file, ImageFormat::Png)
        .expect("a picture in memory can be written to memory");
    Ok(file.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &str = "2@abc,bm9pc2U=,aWRlbnRpdHk=,YWR2,7";

    #[test]
    fn a_code_is_drawn_as_svg_and_png() {
        assert!(svg(PAYLOAD).unwrap().contains("<svg"));
        let picture = image::load_from_memory(&png(PAYLOAD).unwrap()).unwrap().into_luma8();
        assert_eq!(picture.width(), picture.height());
        assert_eq!(picture.get_pixel(0, 0), &Luma([255]), "a white margin");
        let first = MODULE * QUIET;
        assert_eq!(
            picture.get_pixel(first, first),
            &Luma([0]),
            "the corner of a finder pattern"
        );
        assert_eq!(svg(&"x".repeat(3_000)).unwrap_err(), TooLong);
        png(&"x".repeat(3_000)).unwrap_err();
    }
}
