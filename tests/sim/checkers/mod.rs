//! Invariants. Checkers use only the public API of the code they check.

pub mod bounds;
pub mod commands;
pub mod convergence;
pub mod durability;
pub mod feed;
pub mod merges;
pub mod promises;
