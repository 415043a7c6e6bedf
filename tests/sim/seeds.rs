//! Selection of seeds, the threads that run them, and the report.

use std::any::Any;
use std::io::{Write, stderr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::faults::{Fault, Tally};

/// Number of threads that run seeds.
const THREADS: usize = 2;

/// A violated invariant.
#[derive(Clone, Debug)]
pub struct Violation {
    pub checker: &'static str,
    pub what: String,
}

impl Violation {
    pub fn new(checker: &'static str, what: impl Into<String>) -> Violation {
        Violation { checker, what: what.into() }
    }
}

/// The outcome of one seed: a summary, or the violation.
pub type Verdict = Result<String, Violation>;

/// Returns the seeds to run: `PEAT_SIM_SEEDS` as `a..b`, `a,b,c` or one number; otherwise `count`, half of them fixed and half
/// derived from the commit.
pub fn chosen(count: u64) -> Vec<u64> {
    let half = count / 2;
    match (std::env::var("PEAT_SIM_SEEDS"), commit()) {
        (Ok(text), _) if !text.is_empty() => parse(&text),
        (_, Some(first)) => (1..=half).chain(first..first + half).collect(),
        (_, None) => (1..=count).collect(),
    }
}

/// Returns true if the caller chose the seeds; a choice need not include every fault.
pub fn are_chosen() -> bool {
    std::env::var("PEAT_SIM_SEEDS").is_ok_and(|text| !text.is_empty())
}

fn parse(text: &str) -> Vec<u64> {
    let number = |text: &str| -> u64 { text.trim().parse().expect("PEAT_SIM_SEEDS is a..b, a,b,c or a number") };
    match text.split_once("..") {
        Some((low, high)) => (number(low)..number(high)).collect(),
        None => text.split(',').map(number).collect(),
    }
}

/// Returns the first digits of the commit's hash, so that every commit tries new seeds.
fn commit() -> Option<u64> {
    const DIGITS: usize = 12;
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    let hash = String::from_utf8(output.stdout).ok()?;
    u64::from_str_radix(hash.get(..DIGITS)?, 16).ok()
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
}

/// Runs `scenario` on one seed; a panic is a violation.
pub fn run_one(seed: u64, tally: &Arc<Tally>, scenario: impl Fn(u64, &Arc<Tally>) -> Verdict) -> Verdict {
    let ran = catch_unwind(AssertUnwindSafe(|| scenario(seed, tally)));
    ran.unwrap_or_else(|panic| Err(Violation::new("no panic", words(panic.as_ref()))))
}

/// Writes past the test harness, which hides the output of passing tests.
pub fn say(text: &str) {
    writeln!(stderr(), "{text}").ok();
}

/// Runs `scenario` on every seed, prints the number of injected faults, and fails on a violation or if a fault of `wanted` was
/// never injected. `name` is part of the name of the test, for the replay command.
pub fn swarm(name: &str, seeds: &[u64], wanted: &[Fault], scenario: impl Fn(u64, &Arc<Tally>) -> Verdict + Sync) {
    let (tally, next, failed) = (Arc::<Tally>::default(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let worker = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            match run_one(*seed, &tally, &scenario) {
                Ok(summary) if seeds.len() == 1 => say(&summary),
                Ok(_) => {}
                Err(violation) => {
                    say(&format!(
                        "{name}: {} violated: {}\n{}",
                        violation.checker,
                        violation.what,
                        replay(name, *seed)
                    ));
                    failed.lock().expect("no panic while held").push(*seed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        (0..THREADS).for_each(|_| drop(scope.spawn(worker)));
    });
    say(&format!("{name}: {} seeds; injected:\n{tally}", seeds.len()));
    report(name, failed.into_inner().expect("no panic while held"));
    let never = tally.never(wanted);
    assert!(are_chosen() || never.is_empty(), "{name}: never injected: {never:?}");
}

/// Prints events if `PEAT_SIM_TRACE` is set, for replaying one seed.
pub fn trace(words: impl FnOnce() -> String) {
    if std::env::var_os("PEAT_SIM_TRACE").is_some() {
        say(&words());
    }
}

/// Returns the command that replays one seed.
fn replay(name: &str, seed: u64) -> String {
    format!("replay: make sim SCENARIO={name} SEEDS={seed}")
}

fn report(name: &str, mut failed: Vec<u64>) {
    failed.sort_unstable();
    failed.iter().take(10).for_each(|seed| say(&replay(name, *seed)));
    assert!(failed.is_empty(), "{name}: {} seeds failed: {failed:?}", failed.len());
}
