//! Pages for people: what was measured, as one file of HTML that loads nothing, runs nothing, and can be read on a
//! phone, in the dark, on paper and by ear.
//!
//! Whatever comes from an artifact is text: `maud` escapes it. [`page`], [`table`], [`chart`], [`bars`] and
//! [`picture`] are the parts; [`evaluation`] is the page about one measurement record, [`gallery`] that of a
//! server, which loads its own pictures. A [`figure`] stands outside of pages.

#![forbid(unsafe_code)]

pub mod bars;
pub mod chart;
pub mod evaluation;
pub mod figure;
pub mod gallery;
pub mod gates;
pub mod number;
pub mod page;
pub mod picture;
pub mod table;
