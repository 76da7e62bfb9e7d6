//! name = "lethe-operator"
