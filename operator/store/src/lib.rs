//! name = "lethe-store"
