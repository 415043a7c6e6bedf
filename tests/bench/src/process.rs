//! Figures of a node from `/proc`, and processor affinity.

use std::fs;
use std::path::Path;

use bench_peers::Failure;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Pins this thread, and every process it starts, to one processor; the thread until this is dropped. Two processes that call
/// each other take four times as long if the scheduler spreads them over processors that sleep between calls, and its choice
/// differs from run to run.
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
        // Restores the previous affinity, which was valid before.
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

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All resident memory.
    pub(crate) resident: f64,
    /// The part that is not backed by a file.
    pub(crate) anonymous: f64,
}

/// Returns the memory of the process with the `/proc` directory `process`.
pub(crate) fn memory(process: &Path) -> Result<Memory, Failure> {
    let status = fs::read_to_string(process.join("status"))?;
    let kib = |name| field(&status, name).map(|kib| kib as f64 * 1024.0);
    Ok(Memory { resident: kib("VmRSS:")?, anonymous: kib("RssAnon:")? })
}

/// Returns the number of wake-ups of its threads since its start.
pub(crate) fn wakeups(process: &Path) -> Result<u64, Failure> {
    let mut total = 0;
    for task in fs::read_dir(process.join("task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        total += field(&status, "voluntary_ctxt_switches:")?;
    }
    Ok(total)
}

/// Returns the number of bytes it has caused the kernel to write to disks since its start.
pub(crate) fn written(process: &Path) -> Result<u64, Failure> {
    field(&fs::read_to_string(process.join("io"))?, "write_bytes:")
}

/// Returns the processor time, in seconds, of a process (`/proc/ID`) or one thread (`/proc/ID/task/ID`).
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
