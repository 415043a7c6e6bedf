//! What must hold, each checker knowing nothing of the code it checks but its public answers.

pub mod bounds;
pub mod commands;
pub mod convergence;
pub mod durability;
pub mod feed;
pub mod merges;
pub mod promises;
