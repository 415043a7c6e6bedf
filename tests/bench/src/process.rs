//! What `/proc` says of a node, and where processes run.

use std::fs;
use std::path::Path;

use bench_peers::Failure;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// This thread, and every process it starts, on one processor; until it is dropped, for the thread. Two processes that call each
/// other take four times as long when the scheduler gives each a processor of its own that sleeps between calls, and it
/// decides that anew in every run.
#[derive(Debug)]
pub(crate) struct OneProcessor(CpuSet);

impl OneProcessor {
    pub(crate) fn begin() -> Result<OneProcessor, Failure> {
        let all = sched_getaffinity(None)?;
        let first = (0..CpuSet::MAX_CPU).find(|&processor| all.is_set(processor)).ok_or("no processor to run on")?;
        let mut one = CpuSet::new();
        one.set(first);
        sched_setaffinity(None, &one)?;
        Ok(OneProcessor(all))
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        // It ran there before.
        let _ = sched_setaffinity(None, &self.0);
    }
}

/// Kills the processes that this one started.
pub(crate) fn kill_children() {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return };
    for task in tasks.flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)) {
            // It may have ended by itself.
            let _ = kill_process(child, Signal::KILL);
        }
    }
}

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All of it.
    pub(crate) resident: f64,
    /// The part that is not backed by a file.
    pub(crate) anonymous: f64,
}

/// Memory of the process whose directory in `/proc` is `process`.
pub(crate) fn memory(process: &Path) -> Result<Memory, Failure> {
    let status = fs::read_to_string(process.join("status"))?;
    let kib = |name| field(&status, name).map(|kib| kib as f64 * 1024.0);
    Ok(Memory { resident: kib("VmRSS:")?, anonymous: kib("RssAnon:")? })
}

/// How often any of its threads has been woken since its start.
pub(crate) fn wakeups(process: &Path) -> Result<u64, Failure> {
    let mut total = 0;
    for task in fs::read_dir(process.join("task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        total += field(&status, "voluntary_ctxt_switches:")?;
    }
    Ok(total)
}

/// Bytes that it has made the kernel write to disks, since its start.
pub(crate) fn written(process: &Path) -> Result<u64, Failure> {
    field(&fs::read_to_string(process.join("io"))?, "write_bytes:")
}

/// Seconds that a process (`/proc/ID`), or one thread (`/proc/ID/task/ID`), has been on a processor.
pub(crate) fn busy(who: &Path) -> Result<f64, Failure> {
    let tasks = who.join("task");
    let mut nanoseconds = 0;
    if tasks.exists() {
        for task in fs::read_dir(tasks)? {
            nanoseconds += on_processor(&task?.path())?;
        }
    } else {
        nanoseconds = on_processor(who)?;
    }
    Ok(nanoseconds as f64 / 1e9)
}

fn on_processor(task: &Path) -> Result<u64, Failure> {
    let text = fs::read_to_string(task.join("schedstat"))?;
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
}

fn field(status: &str, name: &str) -> Result<u64, Failure> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
    let number = value.split_whitespace().next().unwrap_or_default();
    Ok(number.parse()?)
}
