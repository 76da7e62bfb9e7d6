//! Grids of samples: one PNG with a row per label, of which the page shows rows.
//!
//! The picture is in the page once; every row is a window on it. It is not decoded: the browser does that.

use base64::{Engine, engine::general_purpose::STANDARD};
use maud::{Markup, html};

/// A larger picture would make the page unreadable, and is named instead.
pub const MAX_BYTES: usize = 8 << 20;
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A PNG with rows of equal height.
pub struct Picture {
    id: &'static str,
    data: String,
    width: u32,
    height: u32,
    rows: usize,
}

impl Picture {
    /// `id` tells it from others in the same page.
    ///
    /// # Errors
    /// Says why these bytes cannot be shown.
    pub fn new(id: &'static str, png: &[u8], rows: usize) -> Result<Self, String> {
        if png.len() > MAX_BYTES {
            return Err(format!("it has {} bytes; at most {MAX_BYTES} are put into a page", png.len()));
        }
        let (width, height) = size(png).ok_or("it is not a PNG")?;
        if rows == 0 || width == 0 || (height as usize) < rows {
            return Err(format!("{width} x {height} pixels are not {rows} rows"));
        }
        Ok(Self { id, data: data_uri(png), width, height, rows })
    }

    /// The picture itself, out of sight. Must be in the page once, before any row.
    pub fn sheet(&self) -> Markup {
        html! {
            svg.sheet width="0" height="0" aria-hidden="true" {
                defs { image id=(self.id) width=(self.width) height=(self.height) href=(self.data) {} }
            }
        }
    }

    /// Row `index`, described by `alt`.
    pub fn row(&self, index: usize, alt: &str) -> Markup {
        let height = f64::from(self.height) / self.rows as f64;
        let top = height * index as f64;
        html! {
            svg.samples viewBox={ "0 " (format!("{top:.2}")) " " (self.width) " " (format!("{height:.2}")) } role="img"
                aria-label=(alt) { use href={ "#" (self.id) } {} }
        }
    }

    /// All of it.
    pub fn whole(&self, alt: &str) -> Markup {
        html! {
            svg.samples viewBox={ "0 0 " (self.width) " " (self.height) } role="img" aria-label=(alt) {
                use href={ "#" (self.id) } {}
            }
        }
    }
}

pub fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

/// Width and height, from the header.
fn size(png: &[u8]) -> Option<(u32, u32)> {
    let header = png.strip_prefix(SIGNATURE)?;
    let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    if header.get(4..8)? != b"IHDR" {
        return None;
    }
    Some((number(8)?, number(12)?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The beginning of a PNG, as far as this module reads.
    pub(crate) fn png(width: u32, height: u32) -> Vec<u8> {
        let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
        [SIGNATURE, &13u32.to_be_bytes(), b"IHDR", &size].concat()
    }

    #[test]
    fn a_row_is_a_window_on_the_one_picture() {
        let picture = Picture::new("before", &png(100, 40), 4).unwrap();
        assert!(picture.sheet().into_string().contains("data:image/png;base64,"));
        let row = picture.row(2, "samples of \"3\"").into_string();
        assert!(row.contains("viewBox=\"0 20.00 100 10.00\"") && row.contains("href=\"#before\""), "{row}");
        assert!(row.contains("samples of &quot;3&quot;") && !row.contains("data:"), "{row}");
    }

    #[test]
    fn what_is_no_picture_is_refused_with_a_reason() {
        let refused = |png: &[u8], rows| Picture::new("a", png, rows).err().unwrap();
        assert!(refused(b"GIF89a", 1).contains("not a PNG"));
        assert!(refused(&png(100, 40)[..20], 1).contains("not a PNG"));
        assert!(refused(&png(100, 40), 0).contains("0 rows"));
        assert!(refused(&png(100, 3), 4).contains("not 4 rows"));
        assert!(refused(&vec![0; MAX_BYTES + 1], 1).contains("at most"));
    }
}
