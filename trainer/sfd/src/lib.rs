//! name = "lethe-sfd"
