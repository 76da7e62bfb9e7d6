//! The page that draws the dashboard in tests, `xtask/tools/grafana`, with what Grafana publishes for the authors of plugins: the components
//! that its own panels are made of. Grafana's server is in no registry of packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt;
use crate::cache::{self, Key};
use crate::{cmd, progress};

/// What the page is made of, in `xtask/tools/grafana`.
const FILES: [&str; 4] = ["package.json", "package-lock.json", "dashboard.tsx", "index.html"];
/// Where Grafana's server has what its components fetch, below `public`; and where that is in its package.
const ICON: (&str, &str) = ("build/img/icons/unicons/info-circle.svg", "img/icons/unicons/info-circle.svg");
/// The same for its font, which npm's packages lack and Debian has. A browser looks at what a font is, not at its name.
const FONTS: [(&str, &str); 2] = [
    ("fonts/inter/Inter-Regular.woff2", "usr/share/fonts/opentype/inter/Inter-Regular.otf"),
    ("fonts/inter/Inter-Medium.woff2", "usr/share/fonts/opentype/inter/Inter-Medium.otf"),
];

/// The folder with the page: `index.html`, its script and its style, and `public` with what Grafana's components fetch. It asks for
/// `board.json` beside it.
///
/// # Errors
/// If npm is missing and cannot be installed, or the packages or the font cannot be had, or it cannot be built.
pub fn page() -> Result<PathBuf> {
    let source = cache::workspace().join("xtask/tools/grafana");
    let key = FILES.iter().try_fold(Key::new("grafana 1"), |key, file| key.file(file, &source.join(file)))?;
    let entry = cache::root()?.join("grafana").join(key.finish());
    if !entry.exists() {
        apt::ensure(apt::NPM)?;
        let fonts = apt::unpacked(&["fonts-inter"])?;
        let label = "build the page that draws the dashboard from Grafana's components (once; about 1 min, and 500 MB meanwhile)";
        progress::step(label, || cache::publish(&entry, |page| build(&source, &fonts, page)))?;
    }
    Ok(entry)
}

fn build(source: &Path, fonts: &Path, page: &Path) -> Result<()> {
    let work = page.join("build");
    fs::create_dir(&work).with_context(|| format!("cannot create {}", work.display()))?;
    for file in FILES {
        cache::copy(&source.join(file), &work.join(file))?;
    }
    // No script of a package runs.
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&work);
    cmd::run_logged(&mut npm, &cache::log("npm-grafana")?)?;
    let mut esbuild = Command::new(work.join("node_modules/.bin/esbuild"));
    esbuild
        .args(["dashboard.tsx", "--bundle", "--format=iife", "--jsx=automatic", "--outfile=../dashboard.js"])
        .arg(r#"--define:process.env.NODE_ENV="production""#)
        // An editor of code, larger than the rest together. No panel has one.
        .arg("--external:monaco-editor")
        .current_dir(&work);
    cmd::run_logged(&mut esbuild, &cache::log("esbuild-grafana")?)?;
    cache::copy(&work.join("index.html"), &page.join("index.html"))?;
    let public = page.join("public");
    cache::copy(&work.join("node_modules/@grafana/ui/dist/public").join(ICON.1), &public.join(ICON.0))?;
    for (there, here) in FONTS {
        cache::copy(&fonts.join(here), &public.join(there))?;
    }
    cache::remove(&work)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;

    /// Permissive ones only, as in `deny.toml`: these expressions can be satisfied with them.
    const LICENCES: [&str; 12] = [
        "(MIT AND Zlib)",
        "(MPL-2.0 OR Apache-2.0)",
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BlueOak-1.0.0",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT AND BSD-3-Clause",
        "Unlicense",
    ];
    /// Packages that do not name one where they should, and what is known of it.
    const UNNAMED: [(&str, &str); 3] = [
        ("node_modules/fast-shallow-equal", "Unlicense, by its README and its LICENSE"),
        (
            "node_modules/get-document",
            "none in the package; get-window of the same authors needs it and is MIT. No part of the page",
        ),
        ("node_modules/react-universal-interface", "Unlicense, by its README and its LICENSE"),
    ];

    fn read(file: &str) -> String {
        std::fs::read_to_string(cache::workspace().join(file)).unwrap()
    }

    fn json(file: &str) -> Value {
        serde_json::from_str(&read(&format!("xtask/tools/grafana/{file}"))).unwrap()
    }

    fn wanted() -> Map<String, Value> {
        json("package.json")["dependencies"].as_object().unwrap().clone()
    }

    #[test]
    fn what_is_fetched_is_pinned_and_from_whatever_registry_npm_is_told_of() {
        let lock = json("package-lock.json");
        for (name, version) in wanted() {
            let exact = version.as_str().unwrap().split('.').map(str::parse::<u32>);
            assert_eq!(exact.filter(Result::is_ok).count(), 3, "{name} is not pinned: {version}");
            assert_eq!(lock["packages"][format!("node_modules/{name}")]["version"], version, "{name}");
        }
        for (name, package) in lock["packages"].as_object().unwrap() {
            assert!(package.get("resolved").is_none(), "{name} names where it came from");
            assert!(name.is_empty() || package["integrity"].is_string(), "{name} may change");
        }
    }

    #[test]
    fn what_is_fetched_may_be_used() {
        for (name, package) in json("package-lock.json")["packages"].as_object().unwrap() {
            match package["license"].as_str() {
                Some(licence) => assert!(LICENCES.contains(&licence), "{name} is under {licence}"),
                None => assert!(UNNAMED.iter().any(|(known, _)| known == name), "{name} names no licence"),
            }
        }
    }

    #[test]
    fn the_page_about_monitoring_names_the_version() {
        let version = &wanted()["@grafana/ui"];
        let said = format!("version {}", version.as_str().unwrap());
        assert!(read("docs/monitoring.md").contains(&said), "docs/monitoring.md does not say {said:?}");
    }
}
