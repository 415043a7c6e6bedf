//! The simulator: the production engines over simulated disks, networks and clocks.
//!
//! One seed decides everything: the number of machines, the writes of clients, the faults, and their times. A failure prints
//! the command that replays it. Each scenario has two phases: while faults are injected no invariant may be violated, and once
//! they have stopped everything must converge. The checkers ([`checkers`]) use only the public API of the code they check, and
//! a deliberately injected bug proves that they detect it.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod checkers;
mod disk;
mod drive;
mod exchange;
mod faults;
mod machine;
mod mesh;
mod model;
mod net;
mod prng;
mod seeds;
mod stores;
mod time;
mod workload;

use std::sync::Arc;

use peat_node::store::InjectedBug;

use faults::Tally;
use seeds::Verdict;

/// Number of seeds that every test run covers, of stores without a network and of whole nodes.
const STORES_SEEDS: u64 = 2_000;
const MESH_SEEDS: u64 = 200;
/// Number of seeds within which an injected bug must be detected.
const CANARY_SEEDS: u64 = 200;

#[test]
fn stores_keep_what_they_acknowledge_and_converge() {
    let base = time::base();
    let scenario = |seed, tally: &Arc<Tally>| stores::run(seed, InjectedBug::Nothing, base, tally);
    seeds::swarm("stores", &seeds::chosen(STORES_SEEDS), stores::FAULTS, scenario);
}

#[test]
fn mesh_nodes_lose_nothing_and_converge_once_healed() {
    let base = time::base();
    let scenario = |seed, tally: &Arc<Tally>| mesh::scenario::run(seed, InjectedBug::Nothing, base, tally);
    seeds::swarm("mesh", &seeds::chosen(MESH_SEEDS), mesh::scenario::FAULTS, scenario);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let (base, tally) = (time::base(), Arc::default());
    for seed in [1, 2, 3] {
        let run = || mesh::scenario::ran(seed, InjectedBug::Nothing, base, &tally);
        let (one, other) = (run(), run());
        assert_eq!(format!("{one:?}"), format!("{other:?}"), "seed {seed}");
    }
}

/// Finds the first seed that detects that writes are acknowledged before they are on disk.
fn canary(name: &str, scenario: impl Fn(u64, &Arc<Tally>) -> Verdict) {
    let tally = Arc::default();
    let catches = |seed: &u64| {
        let verdict = seeds::run_one(*seed, &tally, &scenario);
        verdict.is_err_and(|violation| ["durability", "promises"].contains(&violation.checker))
    };
    let caught = (1..=CANARY_SEEDS).find(catches);
    seeds::say(&format!("{name}: a store that acknowledges before it syncs is caught by seed {caught:?}"));
    assert!(caught.is_some(), "{name}: no seed noticed that writes were acknowledged before they were on disk");
}

#[test]
fn a_store_that_acknowledges_before_it_syncs_is_caught() {
    let base = time::base();
    canary("stores", |seed, tally| stores::run(seed, InjectedBug::AckBeforeSync, base, tally));
    canary("mesh", |seed, tally| mesh::scenario::run(seed, InjectedBug::AckBeforeSync, base, tally));
}
