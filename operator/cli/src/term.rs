//! Writing for people: colour where there is a terminal that wants it, lines that fit, pipes that close.

use std::io::{self, IsTerminal, Write};

/// How a piece of text is to be taken. Never said by colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Strong,
    Soft,
    Good,
    Bad,
    Busy,
}

/// One line, in pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(pub Vec<(Tone, String)>);

impl Line {
    pub fn of(tone: Tone, text: impl Into<String>) -> Self {
        Self(vec![(tone, text.into())])
    }

    #[must_use]
    pub fn and(mut self, tone: Tone, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.is_empty() {
            self.0.push((tone, text));
        }
        self
    }

    /// The text without colours.
    pub fn text(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// As it is written, cut down to `width` characters if one is given.
    pub fn render(&self, colour: bool, width: Option<usize>) -> String {
        let mut left = width.unwrap_or(usize::MAX);
        let cut = self.text().chars().count() > left;
        let mut out = String::new();
        for (tone, text) in &self.0 {
            let mut text: String = text.chars().take(left).collect();
            left -= text.chars().count();
            if cut && left == 0 && text.pop().is_some() {
                text.push('\u{2026}');
            }
            match tone.code().filter(|_| colour) {
                Some(code) => out += &format!("\u{1b}[{code}m{text}\u{1b}[0m"),
                None => out += &text,
            }
            if left == 0 {
                break;
            }
        }
        out
    }
}

impl Tone {
    fn code(self) -> Option<&'static str> {
        match self {
            Tone::Plain => None,
            Tone::Strong => Some("1"),
            Tone::Soft => Some("2"),
            Tone::Good => Some("32"),
            Tone::Bad => Some("31"),
            Tone::Busy => Some("36"),
        }
    }
}

/// Whether standard output is a terminal that wants colours (<https://no-color.org>).
pub fn wants_colour() -> bool {
    let says_no = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    is_terminal() && !says_no && !is_dumb
}

pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Columns and rows of the terminal.
pub fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
}

/// Writes text whole. That nobody reads it any more is an error that `main` forgives.
///
/// # Errors
/// If standard output is closed or full.
pub fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// # Errors
/// As [`write`].
pub fn write_lines(lines: &[Line]) -> io::Result<()> {
    let colour = wants_colour();
    let text: String = lines.iter().map(|line| line.render(colour, None) + "\n").collect();
    write(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_where_it_would_wrap_and_coloured_only_if_asked() {
        let line = Line::of(Tone::Good, "done").and(Tone::Plain, " and written");
        assert_eq!(line.render(false, None), "done and written");
        assert_eq!(line.render(true, None), "\u{1b}[32mdone\u{1b}[0m and written");
        assert_eq!(line.render(false, Some(8)), "done an\u{2026}");
        assert_eq!(line.render(false, Some(16)), "done and written");
        assert_eq!(line.render(false, Some(4)), "don\u{2026}");
    }
}
