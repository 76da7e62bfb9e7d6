//! The page of a server: a row of samples for every label. It is the one page that loads something, its pictures, from
//! where it comes from itself.

use lethe_api::{
    Digest,
    contract::{Override, PlannedTarget},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Samples in a row.
pub const SAMPLES: u64 = 12;
const STYLE: &str = include_str!("gallery.css");

/// What is served.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    pub digest: &'a Digest,
    pub labels: &'a [String],
    pub forgotten: &'a [PlannedTarget],
}

/// Everything at a glance: which model, what it has forgotten, what it shows.
pub fn html(name: &str, model: &Model<'_>, seed: u64) -> String {
    let Model { digest, labels, forgotten } = model;
    let summary = html! {
        @match *forgotten {
            [] => "has forgotten nothing",
            [first, others @ ..] => {
                "has forgotten " strong { (first.label) @for other in others { ", " (other.label) } }
            }
        }
        br;
        code title=(digest) { (digest) }
    };
    let rows = html! {
        @for label in *labels {
            (row(label, forgotten.iter().find(|target| target.label == *label), seed))
        }
    };
    document(name, &summary, seed, &rows)
}

/// What is shown while there is no model.
pub fn waiting(name: &str, reason: &str) -> String {
    document(name, &html! { "is not ready: " (reason) }, 0, &html! {})
}

fn document(name: &str, summary: &Markup, seed: u64, rows: &Markup) -> String {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (name) }
                // Browsers ask for one where none is named, and complain of what they get.
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                header { h1 { (name) } p { "This model " (summary) } }
                form method="get" action="/" {
                    label for="seed" { "Seed" }
                    input #seed name="seed" type="number" min="0" step="1" value=(seed);
                    button { "Draw" }
                    a href={ "/?seed=" (seed.wrapping_add(SAMPLES)) } { "Others" }
                }
                main { (rows) }
            }
        }
    };
    document.into_string()
}

fn row(label: &str, forgotten: Option<&PlannedTarget>, seed: u64) -> Markup {
    let path = percent(label);
    html! {
        figure.forgotten[forgotten.is_some()] {
            figcaption {
                (label)
                @match forgotten.map(|target| &target.replacement) {
                    None => {}
                    Some(Override::Fixed { label }) => small { "forgotten, shows " (label) },
                    Some(_) => small { "forgotten, shows any kept label" },
                }
            }
            img src={ "/samples/" (path) ".png?seed=" (seed) "&n=" (SAMPLES) }
                alt={ (SAMPLES) " samples of label " (label) };
        }
    }
}

/// A label as a segment of a path.
fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_break_out_of_the_page() {
        let row = row("<b>\"&'/..", None, 3).into_string();
        assert!(row.contains("&lt;b&gt;&quot;&amp;'/.."), "{row}");
        assert!(row.contains("\"/samples/%3Cb%3E%22%26%27%2F...png?seed=3&amp;n=12\""), "{row}");
    }

    #[test]
    fn what_is_forgotten_is_named_with_what_is_shown_instead() {
        let labels = ["3", "4", "8"].map(str::to_owned);
        let target = |label: &str, replacement| PlannedTarget { label: label.into(), replacement };
        let forgotten = [target("3", Override::Fixed { label: "8".into() }), target("4", Override::Random)];
        let digest = Digest::of("a model");
        let page = html("digits", &Model { digest: &digest, labels: &labels, forgotten: &forgotten }, 5);
        for words in
            ["<strong>3, 4</strong>", "forgotten, shows 8", "forgotten, shows any kept label", "/?seed=17"]
        {
            assert!(page.contains(words), "{words}: {page}");
        }
        assert_eq!(page.matches("class=\"forgotten\"").count(), 2);
        assert!(waiting("digits", "<no> bundle").contains("is not ready: &lt;no&gt; bundle"));
    }
}
