//! The page that a person looks at: a row of samples for every label.

use std::fmt::Write;

use lethe_api::contract::{Override, PlannedTarget};

use super::{Loaded, routes::Failure};
use crate::grid;

/// Samples in a row.
pub(super) const SAMPLES: u64 = 12;
const MAX_SAMPLES: u64 = 64;
const SCALE: usize = 6;
const PAGE: &str = include_str!("gallery.html");

/// Everything at a glance: which model, what it has forgotten, what it shows.
pub(super) fn page(name: &str, model: &Loaded, seed: u64) -> String {
    let mut rows = String::new();
    for label in &model.config.labels {
        let forgotten = model.forgotten.iter().find(|target| target.label == *label);
        // Writing to a string does not fail.
        let _ = write!(rows, "{}", row_html(label, forgotten, seed));
    }
    let summary = match model.forgotten.len() {
        0 => "has forgotten nothing".to_owned(),
        _ => {
            let labels = model.forgotten.iter().map(|target| escape(&target.label)).collect::<Vec<_>>();
            format!("has forgotten <strong>{}</strong>", labels.join(", "))
        }
    };
    let digest = format!("<code title=\"{0}\">{0}</code>", model.digest);
    let next = seed.wrapping_add(SAMPLES);
    fill(name, &format!("{summary}<br>{digest}"), &seed.to_string(), &next.to_string(), &rows)
}

/// What is shown while there is no model.
pub(super) fn waiting(name: &str, reason: &str) -> String {
    fill(name, &format!("is not ready: {}", escape(reason)), "0", "0", "")
}

/// A PNG of `n` samples of a label, with the seeds from `seed` on.
pub(super) async fn row(model: &Loaded, label: i64, seed: u64, n: u64) -> Result<Vec<u8>, Failure> {
    let seeds = (0..n.clamp(1, MAX_SAMPLES)).map(|i| (label, seed.wrapping_add(i)));
    let images = model.queue.draw(seeds.collect()).await?;
    Ok(grid::png(&[images], model.config.image, SCALE)?)
}

fn row_html(label: &str, forgotten: Option<&PlannedTarget>, seed: u64) -> String {
    let (name, path) = (escape(label), percent(label));
    let note = match forgotten.map(|target| &target.replacement) {
        None => String::new(),
        Some(Override::Fixed { label }) => format!("<small>forgotten, shows {}</small>", escape(label)),
        Some(_) => "<small>forgotten, shows any kept label</small>".to_owned(),
    };
    let class = if forgotten.is_some() { " class=\"forgotten\"" } else { "" };
    format!(
        "<figure{class}><figcaption>{name}{note}</figcaption>\
         <img src=\"/samples/{path}.png?seed={seed}&amp;n={SAMPLES}\" alt=\"{SAMPLES} samples of label {name}\">\
         </figure>\n"
    )
}

fn fill(name: &str, summary: &str, seed: &str, next: &str, rows: &str) -> String {
    // One pass over the template: what is filled in is not searched for placeholders.
    PAGE.split("{{")
        .map(|part| match part.split_once("}}") {
            None => part.to_owned(),
            Some((key, rest)) => {
                let value = match key {
                    "name" => escape(name),
                    "summary" => summary.to_owned(),
                    "seed" => seed.to_owned(),
                    "next" => next.to_owned(),
                    "rows" => rows.to_owned(),
                    _ => String::new(),
                };
                value + rest
            }
        })
        .collect()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
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
        let row = row_html("<b>\"&'/..", None, 3);
        assert!(row.contains("&lt;b&gt;&quot;&amp;&#39;/.."), "{row}");
        assert!(row.contains("/samples/%3Cb%3E%22%26%27%2F...png?seed=3"), "{row}");
    }

    #[test]
    fn what_is_filled_in_is_not_filled_in_again() {
        let page = waiting("{{rows}}", "no bundle");
        assert!(page.contains("rows}}") && page.contains("no bundle"), "{page}");
        assert!(!page.contains("{{summary}}"));
    }
}
