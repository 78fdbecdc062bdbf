//! Pictures as WhatsApp takes them: JPEG of a limited size, with a small preview.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, GenericImageView, ImageDecoder as _, ImageFormat, ImageReader, Limits};

/// Largest file that is uploaded, in bytes: 350 KB.
pub const PICTURE_BYTES_MAX: usize = 350_000;

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

/// Whether a JPEG has everything up to the mark of its end. Decoders fill what is missing with grey, so nothing else tells a file that
/// was cut off.
#[must_use]
pub fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let Some(mut rest) = bytes.strip_prefix(&[0xFF, 0xD8]) else {
        return false;
    };
    while let Some(at) = rest.iter().position(|byte| *byte == 0xFF) {
        rest = &rest[at + 1..];
        let (mark, after) = match rest.split_first() {
            Some((mark, after)) => (*mark, after),
            None => return false,
        };
        rest = match mark {
            0xD9 => return true,
            // Filling before a mark.
            0xFF => continue,
            // A byte of the picture, or a mark that stands alone (ITU-T T.81, table B.1).
            0x00 | 0x01 | 0xD0..=0xD8 => after,
            // A segment that begins with its length, whatever is in it: a preview has an end of its own.
            _ => {
                let length = after.first_chunk().map(|length| u16::from_be_bytes(*length));
                match length.and_then(|length| after.get(usize::from(length)..)) {
                    Some(after) => after,
                    None => return false,
                }
            }
        };
    }
    false
}

/// A picture as it is shown, and whether it is a JPEG that stands so already.
fn read(bytes: &[u8]) -> Result<(DynamicImage, bool), image::ImageError> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(SOURCE_SIDE_MAX);
    limits.max_image_height = Some(SOURCE_SIDE_MAX);
    limits.max_alloc = Some(MEMORY_MAX);
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let is_jpeg = reader.format() == Some(ImageFormat::Jpeg);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    limits.reserve(decoder.total_bytes())?;
    // A picture whose notes cannot be read is shown as it is.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok((picture, is_jpeg && orientation == Orientation::NoTransforms))
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
    if bytes.starts_with(&[0xFF, 0xD8]) && !is_whole_jpeg(bytes) {
        return Err("the picture cannot be read to its end".to_owned());
    }
    let (picture, stands) = read(bytes).map_err(unreadable)?;
    let preview = jpeg(&picture.thumbnail(PREVIEW_SIDE, PREVIEW_SIDE), 60).map_err(unreadable)?;
    let (width, height) = picture.dimensions();
    if stands && bytes.len() <= PICTURE_BYTES_MAX && width.max(height) <= SIDE_MAX {
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
    fn a_photo_that_is_to_be_turned_is_uploaded_as_it_is_shown() {
        let wide = noise(100, 80, ImageFormat::Jpeg);
        // Exif with one entry: to be turned by a quarter to the right.
        let exif = b"\xFF\xE1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let picture = prepare(&[&wide[..2], exif, &wide[2..]].concat()).unwrap();
        assert_eq!((picture.width, picture.height), (80, 100));
        let preview = image::load_from_memory(&picture.preview).unwrap();
        assert!(preview.height() > preview.width());
    }

    #[test]
    fn a_jpeg_is_whole_with_its_end_alone_whatever_its_segments_hold() {
        let whole = noise(40, 40, ImageFormat::Jpeg);
        assert!(is_whole_jpeg(&whole));
        assert!((0..whole.len()).all(|length| !is_whole_jpeg(&whole[..length])));
        // A preview within a segment has an end too; some cameras write more after the end.
        let preview = [&whole[..2], b"\xFF\xE1\x00\x06\xFF\xD8\xFF\xD9", &whole[2..]].concat();
        assert!(is_whole_jpeg(&preview) && !is_whole_jpeg(&preview[..preview.len() - 2]));
        assert!(is_whole_jpeg(&[&whole[..], b"more"].concat()));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let whole = noise(100, 80, ImageFormat::Jpeg);
        for length in [3, 30, whole.len() / 2, whole.len() - 2] {
            assert!(prepare(&whole[..length]).is_err(), "{length} of {}", whole.len());
        }
        assert!(prepare(b"\xFF\xD8\xFF\xE0 not a picture").is_err());
        assert!(prepare(b"not a picture at all").is_err());
        assert!(prepare(&vec![0; SOURCE_BYTES_MAX as usize + 1]).is_err());
    }
}
