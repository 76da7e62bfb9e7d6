//! `report --compliance`: one page per model for people who decide. [`figures`] computes what is said, [`page`] says it.

pub mod figures;
mod page;
#[cfg(test)]
mod tests;

pub use figures::{Compliance, Records};
pub use page::html;
