//! Words of others, as they may be shown.

/// The text as one line that shows nothing but what it says: whatever would move a cursor, colour a terminal, begin another
/// line or turn the direction of writing is a space.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// Whether a character changes how others are shown: control characters, line separators, and the bidirectional controls of
/// Unicode (UAX 9).
fn steers(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_is_a_space_and_words_stay() {
        let hostile = "done\u{1b}[2J\r\nPassed\u{7}\u{0}\u{9b}31m \u{202e}txet\u{2069}\u{2028}end";
        assert_eq!(printable(hostile), "done [2J  Passed   31m  txet  end");
        let plain = "3 → \u{e9}, \u{65e5}\u{672c}\u{8a9e}, \u{1f600}, \"quoted\"";
        assert_eq!(printable(plain), plain);
    }
}
