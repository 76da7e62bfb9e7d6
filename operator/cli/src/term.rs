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
pub struct Line {
    pub parts: Vec<(Tone, String)>,
    /// Where it is broken, the next row begins with this.
    pub hang: String,
}

impl Line {
    pub fn of(tone: Tone, text: impl Into<String>) -> Self {
        Self { parts: vec![(tone, text.into())], hang: String::new() }
    }

    #[must_use]
    pub fn and(mut self, tone: Tone, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.is_empty() {
            self.parts.push((tone, text));
        }
        self
    }

    #[must_use]
    pub fn hanging(self, hang: impl Into<String>) -> Self {
        Self { hang: hang.into(), ..self }
    }

    /// The text without colours.
    pub fn text(&self) -> String {
        self.parts.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// As it is written.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for (tone, text) in &self.parts {
            match tone.code().filter(|_| colour) {
                Some(code) => out += &format!("\u{1b}[{code}m{text}\u{1b}[0m"),
                None => out += text,
            }
        }
        out
    }

    /// The same in rows of at most `width` characters, broken between words where there are any.
    pub fn rows(&self, width: usize) -> Vec<Line> {
        let hang: Vec<(Tone, char)> = self.hang.chars().map(|c| (Tone::Soft, c)).collect();
        // A terminal that is narrower than what a row begins with is too narrow for any rule.
        let width = width.max(hang.len() + 8);
        let mut rest: Vec<(Tone, char)> =
            self.parts.iter().flat_map(|(tone, text)| text.chars().map(|c| (*tone, c))).collect();
        let mut rows = Vec::new();
        let mut begin = 0;
        while rest.len() > width {
            let space = (begin + 1..=width).rev().find(|at| rest[*at].1 == ' ');
            let at = space.unwrap_or(width);
            rows.push(Self::joined(&rest[..at], &self.hang));
            let next = rest[at..].iter().skip_while(|(_, c)| *c == ' ');
            rest = hang.iter().chain(next).copied().collect();
            begin = hang.len();
        }
        rows.push(Self::joined(&rest, &self.hang));
        rows
    }

    fn joined(pieces: &[(Tone, char)], hang: &str) -> Self {
        let mut line = Self::default().hanging(hang);
        for (tone, c) in pieces {
            match line.parts.last_mut() {
                Some((last, text)) if last == tone => text.push(*c),
                _ => line.parts.push((*tone, c.to_string())),
            }
        }
        line
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

/// Lines whole, or on a terminal in rows that fit.
///
/// # Errors
/// As [`write`].
pub fn write_lines(lines: &[Line]) -> io::Result<()> {
    let (colour, width) = (wants_colour(), is_terminal().then(|| size().0));
    let rows =
        lines.iter().flat_map(|line| width.map_or_else(|| vec![line.clone()], |width| line.rows(width)));
    let text: String = rows.map(|row| row.render(colour) + "\n").collect();
    write(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_coloured_only_if_asked() {
        let line = Line::of(Tone::Good, "done").and(Tone::Plain, " and written");
        assert_eq!(line.render(false), "done and written");
        assert_eq!(line.render(true), "\u{1b}[32mdone\u{1b}[0m and written");
    }

    #[test]
    fn a_line_is_broken_between_words_and_goes_on_below_its_beginning() {
        let line = Line::of(Tone::Soft, "│ why  ")
            .and(Tone::Plain, "the training did not get far enough")
            .hanging("│      ");
        let rows = |width| line.rows(width).iter().map(Line::text).collect::<Vec<_>>();
        assert_eq!(rows(24), ["│ why  the training did", "│      not get far", "│      enough"]);
        assert_eq!(rows(100), [line.text()]);
        assert_eq!(line.rows(24)[0].parts[0], (Tone::Soft, "│ why  ".into()), "each piece keeps its colour");
        let word = Line::of(Tone::Plain, "x".repeat(30)).hanging("  ");
        assert_eq!(word.rows(20).iter().map(|row| row.text().len()).collect::<Vec<_>>(), [20, 12]);
    }
}
