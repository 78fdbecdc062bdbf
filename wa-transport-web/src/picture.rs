//! Pictures as WhatsApp takes them: JPEG of a limited size, with a small preview.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, GenericImageView, ImageReader, Limits};

/// Largest file that is uploaded, in bytes.
pub const PICTURE_BYTES_MAX: usize = 350 * 1024;

/// Largest file that is taken, in bytes.
pub const SOURCE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Longest side of what is uploaded, in pixels.
const SIDE_MAX: u32 = 1_600;

/// Longest side of what is taken, in pixels.
const SOURCE_SIDE_MAX: u32 = 12_000;

/// Most memory that taking a picture apart may need.
const MEMORY_MAX: u64 = 256 * 1024 * 1024;

/// Longest side of a preview, in pixels.
const PREVIEW_SIDE: u32 = 72;

/// Qualities that are tried, best first; when none makes the file small enough the picture is made smaller.
const QUALITIES: [u8; 5] = [85, 75, 65, 55, 45];

/// A picture ready to be uploaded.
pub(crate) struct Picture {
    pub(crate) jpeg: Vec<u8>,
    pub(crate) preview: Vec<u8>,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

fn jpeg(picture: &DynamicImage, quality: u8) -> Result<Vec<u8>, image::ImageError> {
    let mut file = Cursor::new(Vec::new());
    picture
        .to_rgb8()
        .write_with_encoder(JpegEncoder::new_with_quality(&mut file, quality))?;
    Ok(file.into_inner())
}

fn fitted(picture: DynamicImage, side: u32) -> DynamicImage {
    if picture.width().max(picture.height()) <= side {
        return picture;
    }
    picture.resize(side, side, FilterType::Triangle)
}

/// Makes a picture fit; takes some hundred milliseconds of one core for large ones.
///
/// # Errors
/// What is wrong with the picture, for people.
pub(crate) fn prepare(bytes: &[u8]) -> Result<Picture, String> {
    if bytes.len() as u64 > SOURCE_BYTES_MAX {
        return Err(format!("a picture may have at most {SOURCE_BYTES_MAX} bytes"));
    }
    let unreadable = |error: image::ImageError| format!("the picture cannot be read: {error}");
    let mut limits = Limits::default();
    limits.max_image_width = Some(SOURCE_SIDE_MAX);
    limits.max_image_height = Some(SOURCE_SIDE_MAX);
    limits.max_alloc = Some(MEMORY_MAX);
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| format!("the picture cannot be read: {error}"))?;
    let is_jpeg = reader.format() == Some(image::ImageFormat::Jpeg);
    reader.limits(limits);
    let picture = reader.decode().map_err(unreadable)?;
    let preview = jpeg(&picture.thumbnail(PREVIEW_SIDE, PREVIEW_SIDE), 60).map_err(unreadable)?;
    let (width, height) = picture.dimensions();
    if is_jpeg && bytes.len() <= PICTURE_BYTES_MAX && width.max(height) <= SIDE_MAX {
        return Ok(Picture {
            jpeg: bytes.to_vec(),
            preview,
            width,
            height,
        });
    }
    let mut side = SIDE_MAX.min(width.max(height)).max(1);
    let mut picture = picture;
    loop {
        picture = fitted(picture, side);
        for quality in QUALITIES {
            let file = jpeg(&picture, quality).map_err(unreadable)?;
            if file.len() <= PICTURE_BYTES_MAX {
                let (width, height) = picture.dimensions();
                return Ok(Picture {
                    jpeg: file,
                    preview,
                    width,
                    height,
                });
            }
        }
        // Noise of every pixel fits well before this.
        if side < 64 {
            return Err("the picture cannot be made small enough".to_owned());
        }
        side = side * 3 / 4;
    }
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, RgbImage};

    use super::*;

    /// Every pixel its own colour, which no JPEG makes small.
    fn noise(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let mut state = 1_u32;
        let picture = RgbImage::from_fn(width, height, |_, _| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [_, red, green, blue] = state.to_be_bytes();
            image::Rgb([red, green, blue])
        });
        let mut file = Cursor::new(Vec::new());
        picture.write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    #[test]
    fn a_large_picture_becomes_a_jpeg_that_fits_with_a_small_preview() {
        let source = noise(1_000, 700, ImageFormat::Png);
        assert!(source.len() > 2_000_000);
        let picture = prepare(&source).unwrap();
        assert!(picture.jpeg.len() <= PICTURE_BYTES_MAX, "{}", picture.jpeg.len());
        let read = image::load_from_memory_with_format(&picture.jpeg, ImageFormat::Jpeg).unwrap();
        assert_eq!((read.width(), read.height()), (picture.width, picture.height));
        let preview = image::load_from_memory_with_format(&picture.preview, ImageFormat::Jpeg).unwrap();
        assert_eq!(preview.width().max(preview.height()), PREVIEW_SIDE);
        assert!(picture.preview.len() < 10_000);
    }

    #[test]
    fn a_small_jpeg_is_uploaded_as_it_is() {
        let source = noise(100, 80, ImageFormat::Jpeg);
        let picture = prepare(&source).unwrap();
        assert!(picture.jpeg == source);
        assert_eq!((picture.width, picture.height), (100, 80));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let mut fake = noise(100, 80, ImageFormat::Jpeg);
        fake.truncate(30);
        assert!(prepare(&fake).is_err());
        assert!(prepare(b"not a picture at all").is_err());
        assert!(prepare(&vec![0; SOURCE_BYTES_MAX as usize + 1]).is_err());
    }
}
