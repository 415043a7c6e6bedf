//! Properties that hold between nodes on a network without faults.

mod admission;
mod commands;
mod copied;
mod documents;
mod large;
mod measure;
mod mesh;
mod narrow;
mod peers;
mod presence;
mod progress;
mod relay;
mod roaming;
mod silence;
mod waiting;
