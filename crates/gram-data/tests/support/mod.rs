//! Small files of every format, written into temporary folders.
#![allow(dead_code, unreachable_pub)] // every test binary uses its own part of this

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use gram_data::{DataError, Dataset, LoadOptions};
use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use tempfile::TempDir;

/// A temporary folder that is filled file by file.
pub struct Folder(pub TempDir);

impl Folder {
    pub fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn with(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.put(name, bytes);
        self
    }

    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn open(&self) -> Result<Dataset, DataError> {
        self.open_with(&LoadOptions::default())
    }

    pub fn open_with(&self, options: &LoadOptions) -> Result<Dataset, DataError> {
        gram_data::open(self.0.path().to_str().unwrap(), options)
    }

    /// The message of the error; checks that it is one line.
    #[track_caller]
    pub fn refusal(&self) -> String {
        self.refusal_with(&LoadOptions::default())
    }

    #[track_caller]
    pub fn refusal_with(&self, options: &LoadOptions) -> String {
        let message = self.open_with(options).map(|d| d.digest).unwrap_err().to_string();
        assert_eq!(message.lines().count(), 1, "{message}");
        message
    }
}

pub fn idx_images(n: u32, h: u32, w: u32, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 3];
    for dim in [n, h, w] {
        bytes.extend(dim.to_be_bytes());
    }
    bytes.extend(pixels);
    bytes
}

pub fn idx_labels(n: u32, labels: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 1];
    bytes.extend(n.to_be_bytes());
    bytes.extend(labels);
    bytes
}

/// Four training images and two test images of 2x3 pixels, classes 0 and 1.
pub fn idx_folder() -> Folder {
    Folder::new()
        .with("train-images-idx3-ubyte", idx_images(4, 2, 3, &(0..24).collect::<Vec<u8>>()))
        .with("train-labels-idx1-ubyte", idx_labels(4, &[0, 1, 1, 0]))
        .with("t10k-images-idx3-ubyte", idx_images(2, 2, 3, &[200; 12]))
        .with("t10k-labels-idx1-ubyte", idx_labels(2, &[1, 0]))
}

/// `labels.len()` records of CIFAR-10: red `i`, green `i + 1`, blue `i + 2` for record `i`.
pub fn cifar10(labels: &[u8]) -> Vec<u8> {
    records(labels, &[])
}

/// The same with a coarse label of 0 before the fine one.
pub fn cifar100(labels: &[u8]) -> Vec<u8> {
    records(labels, &[0])
}

fn records(labels: &[u8], before: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (i, &label) in (0u8..).zip(labels) {
        bytes.extend(before);
        bytes.push(label);
        for channel in 0..3 {
            bytes.extend([i + channel; 1024]);
        }
    }
    bytes
}

pub fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

pub fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A picture with a gradient, so that no two differ only in size.
pub fn colours(w: u32, h: u32, shade: u8) -> RgbImage {
    RgbImage::from_fn(w, h, |x, y| image::Rgb([shade, (x * 7 % 256) as u8, (y * 5 % 256) as u8]))
}

pub fn jpeg(w: u32, h: u32, shade: u8) -> Vec<u8> {
    encoded(colours(w, h, shade), ImageFormat::Jpeg)
}

pub fn png(w: u32, h: u32, shade: u8) -> Vec<u8> {
    encoded(colours(w, h, shade), ImageFormat::Png)
}

pub fn grey_png(w: u32, h: u32, shade: u8) -> Vec<u8> {
    encoded(GrayImage::from_pixel(w, h, image::Luma([shade])), ImageFormat::Png)
}

/// `train/{cat,dog}` with two images each and `val/{cat,dog}` with one each.
pub fn image_folder() -> Folder {
    Folder::new()
        .with("train/cat/a.jpg", jpeg(40, 30, 10))
        .with("train/cat/b.PNG", png(20, 50, 20))
        .with("train/dog/a.jpeg", jpeg(70, 20, 30))
        .with("train/dog/b.png", png(64, 64, 40))
        .with("val/cat/c.jpg", jpeg(33, 33, 50))
        .with("val/dog/c.jpg", jpeg(34, 35, 60))
}

pub fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}
