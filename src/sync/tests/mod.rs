//! What must hold between nodes on a network without faults.

mod admission;
mod documents;
mod mesh;
mod silence;
mod waiting;
