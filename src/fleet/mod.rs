//! The agents beside this node and elsewhere in the mesh, and what is asked of them.

pub mod commands;
