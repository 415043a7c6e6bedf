//! One seed of the mesh: faults, then healing; invariants during the run and checks at its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peat_ipc::sidecar::Liveness;
use peat_node::store::{InjectedBug, Key, Snapshot};

use crate::checkers::{commands, convergence};
use crate::faults::{Fault, Tally};
use crate::mesh::callers::CallerAt;
use crate::mesh::clients::Clients;
use crate::mesh::errands::AgentAt;
use crate::mesh::odd;
use crate::mesh::world::World;
use crate::seeds::{self, Verdict, Violation};

/// Duration of the faulty phase.
const FAULTS_LAST: Duration = Duration::from_secs(30);
/// Time limit of convergence: two maximum redial delays, detection of a dead link, and catching up.
const CONVERGES_WITHIN: Duration = Duration::from_secs(180);
/// Time limit for a write to reach all nodes: a dead link may first have to be detected and dialled again.
const SPREADS_WITHIN: Duration = Duration::from_secs(60);
/// Time limit for a command to begin: its delivery, a heartbeat of its agent, and the node's answer to the acceptance.
const IN_TIME: Duration = Duration::from_secs(20);
/// Time limit for a subscriber to receive everything its node has.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// Duration for which a mesh without writers is observed, and its limits: versions stored by a node and datagrams on a link.
/// Agents still send heartbeats, and commands expire.
const QUIET_LASTS: Duration = Duration::from_secs(20);
const QUIET_VERSIONS: u64 = 1_000;
const QUIET_DATAGRAMS: u64 = 4_000;

/// Faults that this scenario must inject at least once over all seeds.
pub const FAULTS: &[Fault] = &[
    Fault::Crash,
    Fault::CrashInCommit,
    Fault::Restart,
    Fault::WriteLost,
    Fault::WriteTorn,
    Fault::ReadError,
    Fault::WriteError,
    Fault::SyncError,
    Fault::DiskFull,
    Fault::SlowSync,
    Fault::DiskReplaced,
    Fault::BackupRestored,
    Fault::Lost,
    Fault::Duplicated,
    Fault::Reordered,
    Fault::Throttled,
    Fault::QueueFull,
    Fault::TooLong,
    Fault::Cut,
    Fault::OneWayCut,
    Fault::Partition,
    Fault::Roamed,
    Fault::RoamedUnseen,
    Fault::Stranded,
    Fault::Satellite,
    Fault::LinkRate,
    Fault::ClockJump,
    Fault::ClockDrift,
    Fault::LookupFailed,
    Fault::LookupSlow,
    Fault::Silence,
    Fault::Disconnected,
    Fault::Hangup,
    Fault::NodeLost,
    Fault::AgentCut,
    Fault::AgentMoved,
    Fault::AgentRestarted,
    Fault::WrittenEarly,
    Fault::AgentEarly,
    Fault::AgentCancelled,
    Fault::RelayCrash,
    Fault::RelayRestart,
    Fault::DirectCut,
    Fault::DirectRestored,
    Fault::Relayed,
    Fault::HotEdit,
    Fault::Stopped,
    Fault::Flapped,
    Fault::MixedKinds,
    Fault::LongKeys,
    Fault::TooLarge,
];

/// Result of running a seed.
#[derive(Debug, Eq, PartialEq)]
pub struct Ran {
    pub nodes: usize,
    pub shape: &'static str,
    pub trace: u64,
    pub datagrams: u64,
    pub steps: u64,
    pub converged: Duration,
}

/// Runs one seed.
pub fn run(seed: u64, injected_bug: InjectedBug, base: Instant, tally: &Arc<Tally>) -> Verdict {
    ran(seed, injected_bug, base, tally).map(|ran| format!("{} nodes in a {}: {ran:?}", ran.nodes, ran.shape))
}

/// Runs one seed and returns its result.
pub fn ran(seed: u64, injected_bug: InjectedBug, base: Instant, tally: &Arc<Tally>) -> Result<Ran, Violation> {
    let mut world = World::new(seed, injected_bug, base, tally);
    let plan = world.plan.clone();
    seeds::trace(|| format!("{plan:?}"));
    world.run_until(FAULTS_LAST)?;
    let before = world.trace();
    seeds::trace(|| format!("healing; trace {before:x}"));
    world.heal()?;
    world.run_until(FAULTS_LAST + Duration::from_secs(8))?;
    world.reconnect()?;
    let converged = converge(&mut world, CONVERGES_WITHIN)? - FAULTS_LAST;
    verify(&mut world)?;
    spread(&mut world)?;
    kinds_stay_apart(&mut world)?;
    what_no_link_carries_is_named(&mut world)?;
    everyone_saw_everything(&mut world)?;
    everyone_shows_every_agent(&mut world)?;
    every_agent_sees_its_commands(&mut world)?;
    becomes_quiet(&mut world)?;
    Ok(Ran {
        nodes: plan.nodes,
        shape: plan.shape,
        trace: world.trace(),
        datagrams: world.net.sent,
        steps: world.steps(),
        converged,
    })
}

fn converge(world: &mut World, within: Duration) -> Result<Duration, Violation> {
    let deadline = world.time() + within;
    loop {
        let Some(difference) = disagreement(world)? else { return Ok(world.time()) };
        if world.time() >= deadline {
            return Err(Violation::new("convergence", format!("after {within:?}: {difference}\n{}", pending(world))));
        }
        let next = world.time() + Duration::from_millis(200);
        world.run_until(next)?;
        world.idle_until(next);
    }
}

/// Checks that after convergence a last write on every node reaches all the others.
fn spread(world: &mut World) -> Result<(), Violation> {
    for number in world.core.clone() {
        world.write(number)?;
    }
    let next = world.time() + Duration::from_millis(100);
    world.run_until(next)?;
    converge(world, SPREADS_WITHIN)?;
    verify(world)
}

/// Checks that of a collection with differing kinds nothing is exchanged, neither documents nor deletions.
fn kinds_stay_apart(world: &mut World) -> Result<(), Violation> {
    if !world.plan.is_mixed() {
        return Ok(());
    }
    for deletes in [false, true] {
        world.write_mixed_last(deletes)?;
        let next = world.time() + Duration::from_secs(2);
        world.run_until(next)?;
        world.idle_until(next);
    }
    hold_within(world, SPREADS_WITHIN, "kinds stay apart", |world| match snapshots(world)? {
        Some(snapshots) => world.mixed_up(&snapshots).map_err(|error| broken(&error)),
        None => Ok(Some("a node is off".into())),
    })
}

/// Checks that a document too large for any link is named in the health of both ends until it is shortened, and that all others
/// replicate.
fn what_no_link_carries_is_named(world: &mut World) -> Result<(), Violation> {
    if !world.random.chance(80) {
        return Ok(());
    }
    let core: Vec<usize> = world.core.iter().copied().collect();
    let holder = *world.random.pick(&core);
    world.bring_large(holder)?;
    let named = |world: &mut World| Ok(world.large_unnamed(holder, true));
    hold_within(world, odd::NAMED_WITHIN, "what does not replicate is named", named)?;
    spread(world)?;
    world.shorten_large(holder)?;
    converge(world, SPREADS_WITHIN)?;
    let quiet = |world: &mut World| Ok(world.large_unnamed(holder, false));
    hold_within(world, odd::NAMED_WITHIN, "what replicates is not named", quiet)
}

/// Runs until `wrong` returns `None`, within a time limit.
fn hold_within(
    world: &mut World,
    within: Duration,
    holds: &'static str,
    wrong: impl Fn(&mut World) -> Result<Option<String>, Violation>,
) -> Result<(), Violation> {
    let deadline = world.time() + within;
    while let Some(what) = wrong(world)? {
        if world.time() >= deadline {
            return Err(Violation::new(holds, format!("after {within:?}: {what}\n{}", pending(world))));
        }
        let next = world.time() + Duration::from_millis(500);
        world.run_until(next)?;
        world.idle_until(next);
    }
    Ok(())
}

/// Checks that subscribers, fast again, end with exactly their node's content, and that every call was answered.
fn everyone_saw_everything(world: &mut World) -> Result<(), Violation> {
    let deadline = world.time() + SEEN_WITHIN;
    loop {
        let next = world.time() + Duration::from_millis(500);
        world.run_until(next)?;
        world.idle_until(next);
        let snapshots = snapshots(world)?.unwrap_or_default();
        let watchers = world.core.iter().map(|number| &world.watchers[*number]).zip(&snapshots);
        let behind = watchers.map(|(watcher, snapshot)| watcher.difference(snapshot)).collect::<Result<Vec<_>, _>>();
        let behind = behind.map_err(|error| broken(&error))?.into_iter().flatten().next();
        let unanswered: usize = world.callers.iter().map(CallerAt::outstanding).sum();
        let unanswered = unanswered + world.agents.iter().map(AgentAt::outstanding).sum::<usize>();
        let unanswered = unanswered + world.clients.iter().map(Clients::outstanding).sum::<usize>();
        match behind {
            None if unanswered == 0 => return Ok(()),
            _ if next < deadline => {}
            Some(difference) => return Err(Violation::new("feed", difference)),
            None => return Err(Violation::new("every call is answered once", format!("{unanswered} calls were not"))),
        }
    }
}

/// Checks that every node lists every agent as LIVE, at the node it is attached to.
fn everyone_shows_every_agent(world: &mut World) -> Result<(), Violation> {
    let deadline = world.time() + SPREADS_WITHIN;
    loop {
        let mut wrong = None;
        for node in world.core.clone() {
            let shown = world.shown(node)?;
            for agent in &world.linked {
                let via = format!("node{}", agent.node);
                let right = |shown: &&peat_ipc::sidecar::Agent| shown.agent_id == agent.id && shown.via == via;
                let live = shown.iter().find(right).is_some_and(|agent| agent.liveness() == Liveness::Live);
                if !live {
                    let held = shown.iter().find(|shown| shown.agent_id == agent.id);
                    let key = Key::new("agents", agent.id.as_str()).expect("an id");
                    let stored = snapshots(world)?.unwrap_or_default();
                    let stored: Vec<_> = stored.iter().map(|snapshot| snapshot.document(&key)).collect();
                    wrong = Some(format!("node {node} shows {} of {via} as {held:?}; stored {stored:?}", agent.id));
                }
            }
        }
        match wrong {
            None => return Ok(()),
            Some(wrong) if world.time() >= deadline => return Err(Violation::new("liveness", wrong)),
            Some(_) => {
                let next = world.time() + Duration::from_millis(500);
                world.run_until(next)?;
                world.idle_until(next);
            }
        }
    }
}

/// Checks that pending commands have reached their agents, and that new ones arrive in time from every node.
fn every_agent_sees_its_commands(world: &mut World) -> Result<(), Violation> {
    world.send_to_everyone()?;
    let sent = world.time();
    loop {
        let next = world.time() + Duration::from_millis(500);
        world.run_until(next)?;
        world.idle_until(next);
        let unseen = world.errands.due.iter().find(|(agent, id)| !world.begun.has(agent, id));
        let waits = match unseen {
            Some(unseen) if world.time() < sent + IN_TIME => Some(format!("{unseen:?} is not begun")),
            Some(unseen) => {
                return Err(Violation::new("commands come in time", format!("{unseen:?} after {IN_TIME:?}")));
            }
            None => owed(world)?,
        };
        let unanswered: usize = world.agents.iter().map(AgentAt::outstanding).sum();
        match waits {
            None if unanswered == 0 => return Ok(()),
            _ if next < sent + SPREADS_WITHIN => {}
            waits => return Err(Violation::new("commands come in time", format!("{waits:?}, {unanswered} calls"))),
        }
    }
}

/// Checks that nothing circulates forever: apart from heartbeats and expiring commands, hardly anything is written or sent.
fn becomes_quiet(world: &mut World) -> Result<(), Violation> {
    let written = |world: &World| -> Vec<u64> {
        let core = world.core.iter().map(|number| world.nodes[*number].running.as_ref());
        core.map(|running| running.map_or(0, |running| running.store.tip().visible)).collect()
    };
    let (before, sent) = (written(world), world.net.sent);
    let end = world.time() + QUIET_LASTS;
    world.run_until(end)?;
    world.idle_until(end);
    let most = written(world).iter().zip(&before).map(|(after, before)| after - before).max().unwrap_or(0);
    let links = (world.plan.edges.len() as u64).max(1);
    let datagrams = (world.net.sent - sent) / links;
    seeds::trace(|| format!("quiet: {most} versions at a node, {datagrams} datagrams a link in {QUIET_LASTS:?}"));
    if most > QUIET_VERSIONS || datagrams > QUIET_DATAGRAMS {
        let what = format!("{most} versions at one node and {datagrams} datagrams a link in {QUIET_LASTS:?}");
        return Err(Violation::new("quiet", format!("{what}\n{}", pending(world))));
    }
    Ok(())
}

/// Returns a command that, according to some node, an agent should have received or ended.
fn owed(world: &World) -> Result<Option<String>, Violation> {
    let Some(snapshots) = snapshots(world)? else { return Ok(Some("a node is off".into())) };
    let agents: Vec<&str> = world.linked.iter().map(|agent| agent.id.as_str()).collect();
    let settled = !world.trouble.had_disaster() && world.core.len() == world.nodes.len();
    for (node, snapshot) in world.core.iter().zip(&snapshots) {
        let owed = commands::owed(snapshot, world.now(*node), &agents, settled).map_err(|error| broken(&error))?;
        if let Some(what) = owed {
            return Ok(Some(format!("node {node}: {what}")));
        }
    }
    Ok(None)
}

fn broken(error: &peat_node::store::Error) -> Violation {
    Violation::new("no unexpected error", error.to_string())
}

/// Returns a snapshot of every node; `None` while one is off.
fn snapshots(world: &World) -> Result<Option<Vec<Snapshot>>, Violation> {
    let core: Vec<_> = world.core.iter().filter_map(|number| world.nodes[*number].running.as_ref()).collect();
    if core.len() < world.core.len() {
        return Ok(None);
    }
    core.iter().map(|running| running.reader.snapshot()).collect::<Result<Vec<_>, _>>().map(Some).or(Ok(None))
}

fn disagreement(world: &World) -> Result<Option<String>, Violation> {
    let Some(snapshots) = snapshots(world)? else {
        return Ok(Some("a node is off or its disk does not answer".into()));
    };
    for (number, pair) in snapshots.windows(2).enumerate() {
        let apart = odd::apart(world.large.is_some());
        let difference = convergence::difference(&pair[0], &pair[1], &world.keys, &apart);
        let difference = difference.map_err(|error| broken(&error))?;
        if let Some(difference) = difference {
            return Ok(Some(format!("nodes {number} and {} of the core: {difference}", number + 1)));
        }
    }
    Ok(None)
}

fn verify(world: &mut World) -> Result<(), Violation> {
    let snapshots = snapshots(world)?.unwrap_or_default();
    let keys: Vec<Key> = world.keys.clone();
    for pair in snapshots.windows(2) {
        convergence::same_content(&pair[0], &pair[1], &keys)?;
    }
    snapshots.iter().try_for_each(|snapshot| world.promises.kept(snapshot))
}

/// Describes the reason for missing convergence: the state of each node and its peers.
fn pending(world: &World) -> String {
    let mut lines = Vec::new();
    for node in &world.nodes {
        let Some(running) = &node.running else {
            lines.push(format!("node {}: off", node.number));
            continue;
        };
        let (tip, stats) = (running.store.tip(), running.sync.stats());
        let visible = running.reader.snapshot().map(|snapshot| snapshot.visible());
        lines.push(format!(
            "node {}: tip {tip:?}, readers see {visible:?}, {stats:?}, troubled {}",
            node.number, node.troubled
        ));
        lines.extend(running.sync.buffered().map(|(peer, bytes)| format!("  {peer:?}: {bytes} bytes held")));
    }
    lines.push(format!("{:?}", world.plan));
    lines.join("\n")
}
