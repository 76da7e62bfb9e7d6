//! The page around everything: style, title, and the rule that nothing is loaded or run.

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Light, dark, phone and paper.
const STYLE: &str = include_str!("style.css");
/// A second lock on the door: should text ever get out of its place, no browser runs or fetches anything for it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// A complete document. `lead` stands below the title; `body` is what follows the header.
pub fn page(title: &str, lead: &Markup, body: &Markup, footer: &Markup) -> String {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { "Lethe: " (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    header { h1 { (title) } (lead) }
                    (body)
                    footer { (footer) }
                }
            }
        }
    };
    document.into_string()
}

/// A part of the page under a heading.
pub fn section(heading: &str, content: &Markup) -> Markup {
    html! { section { h2 { (heading) } (content) } }
}

/// What is not there, and why: never drawn as if it were good.
pub fn missing(what: &str) -> Markup {
    html! { p.missing { strong { "Missing: " } (what) } }
}

/// One figure that sums up, in large.
pub struct Tile {
    pub value: String,
    pub text: String,
    pub tone: Tone,
}

/// How something is to be taken. Never said by colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Bad,
}

impl Tone {
    pub fn class(self) -> &'static str {
        match self {
            Tone::Plain => "plain",
            Tone::Good => "good",
            Tone::Bad => "bad",
        }
    }
}

pub fn tiles(tiles: &[Tile]) -> Markup {
    html! {
        div.tiles {
            @for tile in tiles {
                div.tile { b class=(tile.tone.class()) { (tile.value) } small { (tile.text) } }
            }
        }
    }
}

/// Names and what they stand for, such as digests.
pub fn definitions(pairs: &[(&str, Markup)]) -> Markup {
    html! { dl { @for (name, value) in pairs { dt { (name) } dd { (value) } } } }
}
