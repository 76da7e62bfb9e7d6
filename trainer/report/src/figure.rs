//! Figures of their own: documents of SVG that are readable on a light and on a dark page, alone or embedded.

/// Of every figure; its height is what it needs.
pub const WIDTH: f64 = 760.0;
/// Left of the title.
pub const MARGIN: f64 = 16.0;
/// Colours of the series, in order; distinguishable without colour vision, on light and dark.
pub const SERIES: [&str; 4] = ["--a", "--b", "--c", "--d"];
const STYLE: &str = "\
svg{--bg:#ffffff;--fg:#1b1f24;--mute:#59636e;--line:#d1d9e0;--a:#0b6bcb;--b:#c2620c;--c:#5a7d1f;--d:#8250df;\
font:13px system-ui,sans-serif}\
@media(prefers-color-scheme:dark){svg{--bg:#0d1117;--fg:#e6edf3;--mute:#9198a1;--line:#3d444d;--a:#4da3ff;\
--b:#ffa657;--c:#9ccc65;--d:#c297ff}}\
.bg{fill:var(--bg)}text{fill:var(--fg)}.mute{fill:var(--mute)}.line{stroke:var(--line)}.title{font-size:16px;\
font-weight:600}";

/// A complete document around `body`, which may use the style's classes and variables.
pub fn document(title: &str, height: f64, body: &str) -> String {
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
         aria-label=\"{title}\">\n<style>{STYLE}</style>\n<rect class=\"bg\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"30\">{title}</text>\n{body}</svg>\n"
    )
}

/// The line below the title.
pub fn subtitle(text: &str) -> String {
    format!("<text class=\"mute\" x=\"{MARGIN}\" y=\"50\">{}</text>\n", escape(text))
}

/// Text as it may stand in a document.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
