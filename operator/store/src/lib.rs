//! The content-addressed store that operator and trainer share.
//!
//! ```text
//! bundles/<hex>/{manifest.json, model.safetensors, model.json}   named by the manifest's sha256
//! records/<hex>.json                                             named by their own sha256
//! blobs/<hex>                                                    named by their own sha256
//! evidence/<hex of a bundle>/<hex>.json                          named by their own sha256, beside others about the bundle
//! scratch/<hex of a plan's digest>/<name>                        a run's checkpoints
//! ```
//!
//! An installation's audit log lies in a folder of its own, in the store or elsewhere: [`log`] has its layout.
//!
//! A trainer removes its scratch when the plan's outcome is final: it is done, or it failed in a way that is not tried
//! again. The scratch of a plan whose last pod was interrupted or crashed stays, for the pod that goes on; if none ever
//! comes, it may be removed by hand.
//!
//! **Every read is verified**: bytes that do not have the digest they were asked for by are an
//! [`Error::Corrupt`], never a result. **Every read is limited** in size. **Every write is atomic**, and
//! a bundle's manifest is written last: a bundle exists or it does not. Writing the same content twice,
//! or from two places at once, is fine.

#![forbid(unsafe_code)]

mod bundle;
mod cloud;
mod error;
mod evidence;
mod garbage;
pub mod log;
mod objects;
mod store;
mod uri;

pub use bundle::{Bundle, Folder};
pub use cloud::CREDENTIALS;
pub use error::{Error, Problem, Result};
pub use evidence::{Doubt, Evidence};
pub use garbage::{Item, Kind, garbage};
pub use store::{Scratch, Store};
pub use uri::{folder_uri, local_folder};
