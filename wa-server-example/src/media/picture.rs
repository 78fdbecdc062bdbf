//! From bytes that claim to be a picture to a picture that gateways take.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits, RgbImage};
use wa_transport_web::is_whole_jpeg;

use super::PictureError;

/// Longest side of a picture that was made smaller, in pixels.
pub(crate) const SIDE_MAX: u32 = 1_200;
/// Most bytes of a picture that was made smaller: 350 KB.
pub(crate) const SMALL_BYTES_MAX: usize = 350_000;
/// Longest side of a picture that is taken at all, in pixels.
const SIDE_TAKEN_MAX: u32 = 12_000;
/// Most memory that decoding may take.
const DECODE_BYTES_MAX: u64 = 256_000_000;

pub(super) struct Picture {
    pub(super) mime: &'static str,
    pub(super) bytes: Vec<u8>,
}

/// Checks a picture by reading it whole, and makes it smaller if asked to.
pub(super) fn ready(bytes: Vec<u8>, compress: bool) -> Result<Picture, PictureError> {
    let refused = |text: &str| PictureError::Refused(text.to_owned());
    let format = image::guess_format(&bytes).map_err(|_| refused("must be a JPEG, PNG, GIF or WebP picture"))?;
    let mime = match format {
        ImageFormat::Jpeg => "image/jpeg",
        ImageFormat::Png => "image/png",
        ImageFormat::Gif => "image/gif",
        ImageFormat::WebP => "image/webp",
        _ => return Err(refused("must be a JPEG, PNG, GIF or WebP picture")),
    };
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_TAKEN_MAX);
    limits.max_image_height = Some(SIDE_TAKEN_MAX);
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    let unreadable = "must be a picture that can be read to its end";
    if format == ImageFormat::Jpeg && !is_whole_jpeg(&bytes) {
        return Err(refused(unreadable));
    }
    let (image, orientation) = read(&bytes, format, limits).map_err(|error| match error {
        image::ImageError::Limits(_) => {
            PictureError::Refused(format!("must have at most {SIDE_TAKEN_MAX} pixels on each side"))
        }
        _ => refused(unreadable),
    })?;
    if !compress {
        return Ok(Picture { mime, bytes });
    }
    let fits = image.width() <= SIDE_MAX && image.height() <= SIDE_MAX && bytes.len() <= SMALL_BYTES_MAX;
    if fits && format == ImageFormat::Jpeg {
        return Ok(Picture { mime, bytes });
    }
    let mut image = image;
    // What is written anew says no more how it is to be turned.
    image.apply_orientation(orientation);
    small(image).map(|bytes| Picture {
        mime: "image/jpeg",
        bytes,
    })
}

/// Reads a picture, and how it is to be turned when it is shown.
fn read(bytes: &[u8], format: ImageFormat, mut limits: Limits) -> image::ImageResult<(DynamicImage, Orientation)> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    limits.reserve(decoder.total_bytes())?;
    // A picture whose notes cannot be read is shown as it is.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok((DynamicImage::from_decoder(decoder)?, orientation))
}

fn small(image: DynamicImage) -> Result<Vec<u8>, PictureError> {
    let mut side = SIDE_MAX;
    while side >= 100 {
        let resized = if image.width() > side || image.height() > side {
            image.resize(side, side, FilterType::CatmullRom)
        } else {
            image.clone()
        };
        let flat = on_white(&resized);
        for quality in [85, 75, 65, 55, 45] {
            let mut bytes = Vec::new();
            JpegEncoder::new_with_quality(&mut bytes, quality)
                .encode_image(&flat)
                .map_err(|_| PictureError::Refused("must be a picture that can be made smaller".to_owned()))?;
            if bytes.len() <= SMALL_BYTES_MAX {
                return Ok(bytes);
            }
        }
        side = side * 3 / 4;
    }
    Err(PictureError::Refused(
        "must be a picture that can be made smaller".to_owned(),
    ))
}

/// JPEG knows no transparency: what is clear becomes white, not black.
fn on_white(image: &DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.to_rgb8();
    }
    let mut flat = RgbImage::new(image.width(), image.height());
    for (from, to) in image.to_rgba8().pixels().zip(flat.pixels_mut()) {
        let [r, g, b, alpha] = from.0.map(u32::from);
        let mix = |part: u32| u8::try_from((part * alpha + 255 * (255 - alpha)) / 255).unwrap_or(u8::MAX);
        to.0 = [mix(r), mix(g), mix(b)];
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn noise(side: u32) -> DynamicImage {
        let mut state = 1_u32;
        DynamicImage::ImageRgb8(RgbImage::from_fn(side, side, |_, _| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            image::Rgb([(state >> 24) as u8, (state >> 16) as u8, (state >> 8) as u8])
        }))
    }

    #[test]
    fn a_large_picture_becomes_a_jpeg_within_both_limits() {
        let big = encoded(&noise(1_600), ImageFormat::Png);
        assert!(big.len() > SMALL_BYTES_MAX);
        let picture = ready(big, true).unwrap();
        assert_eq!(picture.mime, "image/jpeg");
        assert!(picture.bytes.len() <= SMALL_BYTES_MAX);
        let read = image::load_from_memory(&picture.bytes).unwrap();
        assert!(read.width() <= SIDE_MAX && read.height() <= SIDE_MAX);
    }

    #[test]
    fn a_small_jpeg_and_everything_without_compression_stays_as_it_is() {
        let jpeg = encoded(&noise(50), ImageFormat::Jpeg);
        assert_eq!(ready(jpeg.clone(), true).unwrap().bytes, jpeg);
        let png = encoded(&noise(50), ImageFormat::Png);
        let kept = ready(png.clone(), false).unwrap();
        assert_eq!((kept.mime, kept.bytes), ("image/png", png));
    }

    #[test]
    fn what_is_clear_becomes_white() {
        let clear = DynamicImage::ImageRgba8(image::RgbaImage::new(4, 4));
        let picture = ready(encoded(&clear, ImageFormat::Png), true).unwrap();
        let read = image::load_from_memory(&picture.bytes).unwrap().to_rgb8();
        assert!(read.pixels().all(|pixel| pixel.0.iter().all(|part| *part > 250)));
    }

    #[test]
    fn what_is_no_picture_or_ends_early_is_refused() {
        let cut = |format| {
            let mut file = encoded(&noise(200), format);
            file.truncate(file.len() / 2);
            file
        };
        let cut = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP].map(cut);
        let other = [
            Vec::new(),
            b"<svg/>".to_vec(),
            b"%PDF-1.7".to_vec(),
            vec![0xFF, 0xD8, 0xFF, 0xE0],
        ];
        for bytes in other.into_iter().chain(cut) {
            let start = bytes.get(..4).map(<[u8]>::to_vec);
            assert!(matches!(ready(bytes, true), Err(PictureError::Refused(_))), "{start:?}");
        }
    }

    #[test]
    fn a_picture_that_is_made_smaller_stands_as_it_was_shown() {
        let wide = encoded(&DynamicImage::ImageRgb8(RgbImage::new(1_300, 100)), ImageFormat::Jpeg);
        // Exif with one entry: to be turned by a quarter to the right.
        let exif = b"\xFF\xE1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let photo = [&wide[..2], exif, &wide[2..]].concat();
        let picture = ready(photo, true).unwrap();
        let read = image::load_from_memory(&picture.bytes).unwrap();
        assert!(read.height() > read.width(), "{} x {}", read.width(), read.height());
    }
}
