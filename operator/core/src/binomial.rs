//! binomial
