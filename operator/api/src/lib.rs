//! name = "lethe-api"
