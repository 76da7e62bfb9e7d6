//! The node tier: written next.
