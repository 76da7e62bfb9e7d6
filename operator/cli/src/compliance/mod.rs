//! `report --compliance`: one page per model for people who decide. [`figures`] computes what is said, [`page`] says it to people,
//! [`data`] to programs.

mod data;
pub mod figures;
mod page;
#[cfg(test)]
mod tests;

pub use data::data;
pub use figures::{Compliance, Records};
pub use page::html;
