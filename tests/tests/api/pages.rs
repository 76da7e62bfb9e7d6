//! The pages for each kind of person: whoever types their commands gets what they show.
//!
//! Each has a cluster of its own, since what a chart installs is in part the whole cluster's.

use anyhow::Result;
use lethe_tests::{
    World,
    pages::{Page, Reader},
};

use crate::charts::define_monitoring;

/// What somebody asked for earlier, where a page is about what became of it.
const FORGOTTEN: &str = "kubectl apply -f examples/forget-three.yaml && kubectl lethe watch forget-three";

pub async fn the_platform_engineers_page_does_what_it_says(_: &World) -> Result<()> {
    let page = Page::open("platform-engineer.md")?;
    Reader::new().await?.reads(&page).await
}

pub async fn the_privacy_engineers_page_does_what_it_says(_: &World) -> Result<()> {
    let page = Page::open("privacy-engineer.md")?;
    let reader = Reader::with_a_model().await?;
    reader.is("alice").await?;
    reader.reads(&page).await
}

pub async fn the_page_for_whoever_is_paged_does_what_it_says(_: &World) -> Result<()> {
    let page = Page::open("sre.md")?;
    let reader = Reader::with_a_model().await?;
    define_monitoring(reader.server())?;
    reader.types(FORGOTTEN).await?;
    reader.reads(&page).await
}

pub async fn the_auditors_page_does_what_it_says(_: &World) -> Result<()> {
    let page = Page::open("auditor.md")?;
    let reader = Reader::with_a_model().await?;
    reader.types(FORGOTTEN).await?;
    reader.is("carol").await?;
    reader.reads(&page).await
}
