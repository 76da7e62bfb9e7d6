//! name = "xtask"
