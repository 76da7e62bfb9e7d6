//! name = "lethe-core"
