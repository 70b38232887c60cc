//! One JPEG or PNG file to pixels: decoding within limits, centre crop and resize.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::imageops::{self, FilterType};
use image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::images::check_size;
use crate::source::check_regular;
use crate::{DataError, ImageShape};

/// Largest image file, in bytes.
const MAX_FILE: u64 = 256 << 20;
/// Largest decoded image, in bytes: 89 million pixels of red, green and blue.
const MAX_DECODED: u64 = 256 << 20;
/// No JPEG holds more pixels per file byte: a block of 8x8 pixels takes at least one bit, 512 pixels a byte, and some
/// room is left for luma of lower resolution than the image.
const MAX_JPEG_PIXELS_PER_BYTE: u64 = 2048;
/// No PNG holds more pixels per file byte: deflate expands by at most 1,032, to 8 pixels of one bit a byte.
const MAX_PNG_PIXELS_PER_BYTE: u64 = 8256;

/// Decodes one image file for a model of input `shape`: centre crop to the proportions of the shape and resize.
///
/// The format is told from the content. Exif orientation is applied; transparency is dropped; colours become grey
/// (BT.709 luma) for one channel, grey is repeated for three.
///
/// # Shapes
/// The result is `[c, h, w]`.
/// # Errors
/// Every [`DataError`] about a single image, and [`DataError::Setting`] if `shape` has other than 1 or 3 channels.
pub fn load_image(path: impl AsRef<Path>, shape: ImageShape) -> Result<Vec<u8>, DataError> {
    check_size(shape.h, shape.w)?;
    if shape.c != 1 && shape.c != 3 {
        let reason = format!("images have 1 or 3 channels, {shape} asks for {}", shape.c);
        return Err(DataError::setting("image shape", reason));
    }
    let image = decode_file(path.as_ref())?;
    let mut out = vec![0; shape.c * shape.h * shape.w];
    fill(&image, shape, &mut out);
    Ok(out)
}

/// Decodes a JPEG or PNG file in full and turns it upright.
pub(crate) fn decode_file(path: &Path) -> Result<DynamicImage, DataError> {
    let bytes = read_image_file(path)?;
    let damaged = |reason: String| DataError::Damaged { path: path.to_owned(), reason };
    let format = content_format(path, &bytes)?;
    if format == ImageFormat::Jpeg && !jpeg_is_complete(&bytes) {
        return Err(damaged("the JPEG data ends early".into()));
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODED);
    let mut reader = ImageReader::with_format(Cursor::new(bytes.as_slice()), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| damaged(e.to_string()))?;
    check_claim(path, &decoder, format, bytes.len() as u64)?;
    let orientation = decoder.orientation().map_err(|e| damaged(e.to_string()))?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| damaged(e.to_string()))?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Writes the centred part of `image` that has the proportions of `shape`, resized to it, as planes.
pub(crate) fn fill(image: &DynamicImage, shape: ImageShape, out: &mut [u8]) {
    let (x, y, w, h) = centred_part((image.height(), image.width()), (shape.h, shape.w));
    let part = image.crop_imm(x, y, w, h);
    let (width, height) = (shape.w as u32, shape.h as u32);
    if shape.c == 1 {
        out.copy_from_slice(imageops::resize(&part.into_luma8(), width, height, FilterType::Triangle).as_raw());
        return;
    }
    let resized = imageops::resize(&part.into_rgb8(), width, height, FilterType::Triangle);
    let (red, rest) = out.split_at_mut(shape.h * shape.w);
    let (green, blue) = rest.split_at_mut(shape.h * shape.w);
    for (i, pixel) in resized.as_raw().chunks_exact(3).enumerate() {
        (red[i], green[i], blue[i]) = (pixel[0], pixel[1], pixel[2]);
    }
}

/// One plane of `from` = `(h, w)` pixels, cropped to the proportions of `to` and resized into `out`.
pub(crate) fn fit_plane(plane: &[u8], from: (usize, usize), to: (usize, usize), out: &mut [u8]) {
    let (h, w) = (from.0 as u32, from.1 as u32);
    let image = GrayImage::from_raw(w, h, plane.to_vec()).expect("invariant: a plane has h·w pixels");
    let (x, y, cw, ch) = centred_part((h, w), to);
    let part = imageops::crop_imm(&image, x, y, cw, ch).to_image();
    out.copy_from_slice(imageops::resize(&part, to.1 as u32, to.0 as u32, FilterType::Triangle).as_raw());
}

/// The largest centred rectangle `(x, y, w, h)` of an image `(h, w)` with the proportions of the target `(h, w)`.
fn centred_part((h, w): (u32, u32), (target_h, target_w): (usize, usize)) -> (u32, u32, u32, u32) {
    let (h64, w64, th, tw) = (u64::from(h), u64::from(w), target_h as u64, target_w as u64);
    let rounded = |n: u64, d: u64, most: u32| ((n + d / 2) / d).clamp(1, u64::from(most).max(1)) as u32;
    let (cw, ch) = if w64 * th > h64 * tw {
        (rounded(h64 * tw, th, w), h) // wider than the target: cut left and right
    } else {
        (w, rounded(w64 * th, tw, h))
    };
    ((w - cw) / 2, (h - ch) / 2, cw, ch)
}

fn read_image_file(path: &Path) -> Result<Vec<u8>, DataError> {
    let len = check_regular(path, "an image file")?;
    let too_large = |claimed: u64| DataError::TooLarge {
        path: path.to_owned(),
        claim: "the image file".into(),
        claimed: claimed.into(),
        limit: MAX_FILE,
        advice: "shrink the image",
    };
    if len > MAX_FILE {
        return Err(too_large(len));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| DataError::io(path, e))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| DataError::io(path, e))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

fn content_format(path: &Path, bytes: &[u8]) -> Result<ImageFormat, DataError> {
    if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        return Ok(ImageFormat::Jpeg);
    }
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Ok(ImageFormat::Png);
    }
    let head = &bytes[..bytes.len().min(512)];
    let is_text = head.iter().all(|&b| b >= 0x20 || matches!(b, b'\t' | b'\n' | b'\r'));
    let reason = match head {
        [] => "the file is empty",
        _ if is_text => "its content is text",
        _ => "its content starts like neither",
    };
    Err(DataError::NotAnImage { path: path.to_owned(), reason: reason.into() })
}

/// Compares the size that the header claims with what a file of this length can hold at all.
fn check_claim(path: &Path, decoder: &impl ImageDecoder, format: ImageFormat, file_len: u64) -> Result<(), DataError> {
    let (w, h) = decoder.dimensions();
    let pixel_bytes = u64::from(decoder.color_type().bytes_per_pixel());
    let claimed = u128::from(w) * u128::from(h) * u128::from(pixel_bytes);
    let pixels_per_byte = match format {
        ImageFormat::Jpeg => MAX_JPEG_PIXELS_PER_BYTE,
        _ => MAX_PNG_PIXELS_PER_BYTE,
    };
    let possible = file_len.saturating_mul(pixels_per_byte).saturating_mul(pixel_bytes);
    let (limit, advice) = match possible < MAX_DECODED {
        true => (possible, "that is the most such a short file can hold, so it is damaged: replace it"),
        false => (MAX_DECODED, "shrink the image"),
    };
    if claimed <= u128::from(limit) {
        return Ok(());
    }
    let claim = format!("an image of {w}x{h} pixels");
    Err(DataError::TooLarge { path: path.to_owned(), claim, claimed, limit, advice })
}

/// Whether a JPEG stream reaches its end-of-image marker. The decoder fills what is missing with grey and says
/// nothing, so a cut file has to be told here (ITU-T T.81, annex B: markers, stuffed zero bytes, restart markers).
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2; // behind the start-of-image marker
    let mut in_scan = false;
    while let Some(&[first, marker]) = bytes.get(at..at + 2) {
        let is_marker = first == 0xff && !matches!(marker, 0x00 | 0xff);
        match marker {
            _ if !is_marker => at += 1, // entropy-coded data, fill bytes, or junk between segments
            0xd9 => return true,
            0x01 | 0xd0..=0xd8 => at += 2,
            _ if in_scan && !matches!(marker, 0xc4 | 0xda..=0xdf | 0xe0..=0xef | 0xfe) => at += 2,
            _ => {
                let Some(&[hi, lo]) = bytes.get(at + 2..at + 4) else { return false };
                in_scan |= marker == 0xda;
                at += 2 + usize::from(u16::from_be_bytes([hi, lo])).max(2);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_is_centred_and_has_the_targets_proportions() {
        assert_eq!(centred_part((100, 300), (64, 64)), (100, 0, 100, 100));
        assert_eq!(centred_part((301, 100), (64, 64)), (0, 100, 100, 100));
        assert_eq!(centred_part((100, 100), (32, 64)), (0, 25, 100, 50));
        assert_eq!(centred_part((1, 60_000), (64, 64)), (29_999, 0, 1, 1));
        assert_eq!(centred_part((1, 1), (4096, 1)), (0, 0, 1, 1));
    }

    #[test]
    fn end_of_image_inside_a_thumbnail_does_not_count() {
        // start, an APP1 segment of 6 bytes that contains FF D9, a scan with data, no end
        let cut = [0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xd9, 1, 2, 0xff, 0xda, 0, 2, 7, 0xff, 0x00, 9];
        assert!(!jpeg_is_complete(&cut));
        let mut whole = cut.to_vec();
        whole.extend([0xff, 0xd0, 5, 0xff, 0xd9]);
        assert!(jpeg_is_complete(&whole));
    }
}
