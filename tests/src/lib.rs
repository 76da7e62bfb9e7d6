//! name = "lethe-tests"
