//! Pictures: rows of samples as one PNG.

use lethe_sfd::ImageShape;

use crate::failure::{Failed, Result};

/// Pixels between two samples.
const GAP: usize = 4;
const BACKGROUND: u8 = 64;

/// A PNG with one row for each of `rows`, every sample enlarged `scale` times.
///
/// A sample is channel by channel and row by row, in [-1, 1]. One channel is grey, three are red, green and
/// blue; of any other number the first is shown.
pub(crate) fn png(rows: &[Vec<Vec<f32>>], shape: ImageShape, scale: usize) -> Result<Vec<u8>> {
    let canvas = Canvas::draw(rows, shape, scale);
    let failed = |error: png::EncodingError| Failed::internal(format!("cannot write a PNG: {error}"));
    let mut bytes = Vec::new();
    let size = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
    let mut encoder = png::Encoder::new(&mut bytes, size(canvas.width), size(canvas.height));
    encoder.set_color(if canvas.channels == 3 { png::ColorType::Rgb } else { png::ColorType::Grayscale });
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&canvas.pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

struct Canvas {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    fn draw(rows: &[Vec<Vec<f32>>], shape: ImageShape, scale: usize) -> Self {
        let channels = if shape.channels == 3 { 3 } else { 1 };
        let cell = (shape.height as usize * scale + GAP, shape.width as usize * scale + GAP);
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let (height, width) = (rows.len() * cell.0 + GAP, columns * cell.1 + GAP);
        let pixels = vec![BACKGROUND; height * width * channels];
        let mut canvas = Self { width, height, channels, pixels };
        for (row, samples) in rows.iter().enumerate() {
            for (column, sample) in samples.iter().enumerate() {
                canvas.place(sample, shape, scale, (row * cell.0 + GAP, column * cell.1 + GAP));
            }
        }
        canvas
    }

    fn place(&mut self, sample: &[f32], shape: ImageShape, scale: usize, (top, left): (usize, usize)) {
        let (height, width) = (shape.height as usize, shape.width as usize);
        for y in 0..height * scale {
            for x in 0..width * scale {
                for channel in 0..self.channels {
                    let value = sample[(channel * height + y / scale) * width + x / scale];
                    let at = ((top + y) * self.width + left + x) * self.channels + channel;
                    self.pixels[at] = byte(value);
                }
            }
        }
    }
}

/// -1 is black and 1 is white.
fn byte(value: f32) -> u8 {
    ((value.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_side_by_side_enlarged() {
        let shape = ImageShape { channels: 1, height: 1, width: 2 };
        let rows = [vec![vec![-1.0, 1.0], vec![0.0, 0.0]]];
        let bytes = png(&rows, shape, 3).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (2 * (6 + 4) + 4, 3 + 4 + 4));
        let row: Vec<u8> = pixels[5 * 24..][..24].to_vec();
        let expected = [[64; 4].as_slice(), &[0; 3], &[255; 3], &[64; 4], &[128; 6], &[64; 4]].concat();
        assert_eq!(row, expected);
    }
}
