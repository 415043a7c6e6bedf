//! Endpoints wired to each other in memory, under virtual time.

mod dialling;
mod lanes;
mod net;
mod proofs;
mod quiet;
