//! Channels between the threads, and the start of the threads that they connect.
//!
//! All channels are bounded:
//!
//! | from → to | carries | room | when full |
//! |---|---|---|---|
//! | api, sync → store | `Submitted` | [`STORE_QUEUE`] each | the sender keeps the request and stops reading |
//! | store → api | `Reply` | the requests api may have outstanding | cannot be |
//! | store → sync | `Reply` | the requests sync may have outstanding | cannot be |
//! | store → merge | `Job` | 1 | cannot be: one at a time |
//! | merge → store | `Finished` | 1 | cannot be |
//! | api → sync | `ControlRequest` | [`api::SYNC_OUTSTANDING`] | the call fails with RESOURCE_EXHAUSTED |
//! | sync → api | `Event` | `EVENTS` | the engine keeps it |
//! | main → api, sync | `Reloaded` | 1 | the reload fails |
//! | watcher ↔ api | frames, as any client | a socket pair's | the writer waits |
//! | sync → relay | `RelayControl` | [`ORDERS`] | the engine keeps it |
//! | relay → sync | that it has fallen silent | [`ORDERS`] | the relay waits |
//! | sync → resolver | names | [`resolver::NAMES`] | cannot be |
//! | resolver → sync | `Resolved` | [`resolver::NAMES`] | cannot be |

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::parts::{Components, RelayPart};
use super::reload::Outlets;
use super::threads::Threads;
use super::{Error, dropped_lines};
use crate::clock::shell::now;
use crate::limits::STORE_QUEUE;
use crate::store::shell::SharedTip;
use crate::sync::{self, resolver};
use crate::thread_watchdog::{ThreadWatchdog, WatchdogInterval};
use crate::{api, relay, store, watcher};

/// Capacity of the channel from sync to api: a reply to each request, and status events.
const EVENTS: usize = api::SYNC_OUTSTANDING + 64;

/// Capacity of the channel to this node's relay: to stop, to continue, or to change the key.
pub(super) const ORDERS: usize = 8;

/// Time after which the watchdog considers the watcher late. It waits up to a minute for the node, or 10 s for the agent.
const WATCHER_PATIENCE: Duration = Duration::from_secs(120);

/// A running node.
#[derive(Debug)]
pub(super) struct RunningNode {
    /// Stops the node.
    pub(super) stop: api::shell::Stop,
    /// Stamps of the threads that must keep responding.
    pub(super) pulses: Vec<Arc<ThreadWatchdog>>,
    /// Channels for reloaded settings.
    pub(super) outlets: Outlets,
}

/// Starts the threads. Stopping the api thread stops the others: the sync thread ends when its only caller is gone, and the store
/// ends, after a last flush, when both are gone.
pub(super) fn start(
    mut parts: Components,
    threads: &mut Threads,
    rhythm: Option<WatchdogInterval>,
) -> Result<RunningNode, Error> {
    let pulse = |role, patience| ThreadWatchdog::new(role, now().mono, rhythm, patience);
    let [for_api, for_store, for_sync] = ["api", "store", "sync"].map(|role| pulse(role, Duration::ZERO));
    let for_watcher = parts.watcher.is_some().then(|| pulse("watcher", WATCHER_PATIENCE));
    let mut pulses = vec![for_api.clone(), for_store.clone(), for_sync.clone()];
    pulses.extend(for_watcher.clone());
    let for_relay = parts.relay.is_some().then(|| pulse("relay", Duration::ZERO));
    pulses.extend(for_relay.clone());
    let (requests, submitted) = bounded(2 * STORE_QUEUE);
    let (api_outlet, api_inlet) = store::shell::connect(STORE_QUEUE, parts.clients.waker());
    let (sync_outlet, sync_inlet) = store::shell::connect(sync::STORE_OUTSTANDING, parts.udp.waker());
    let (asked, asks) = bounded(api::SYNC_OUTSTANDING);
    let (tells, events) = bounded(EVENTS);
    let (names, resolved) = start_resolvers(threads, &parts.udp)?;
    let watcher_heartbeat_ms = parts.watcher.as_ref().map(watcher::shell::Shell::heartbeat_ms);
    let watching = start_watcher(threads, &mut parts, for_watcher)?;
    let relay = start_relay(threads, &mut parts, for_relay)?;
    let (outlets, (api_reloads, sync_reloads)) =
        Outlets::new(parts.id, parts.clients.waker(), parts.udp.waker(), watcher_heartbeat_ms);
    let tip = Arc::new(SharedTip::default());
    let api = api::shell::Wiring {
        requests: requests.clone(),
        inlet: api_inlet,
        tip: Arc::clone(&tip),
        asked,
        sync: parts.udp.waker(),
        events,
        pulse: for_api,
        watched: pulses.clone(),
        reloads: api_reloads,
        dropped_log_lines: dropped_lines,
    };
    let sync = sync::shell::Wiring {
        requests,
        inlet: sync_inlet,
        tip: Arc::clone(&tip),
        asked: asks,
        events: tells,
        api: parts.clients.waker(),
        names,
        resolved,
        pulse: for_sync,
        reloads: sync_reloads,
        relay,
    };
    let (jobs, worker) = store::shell::connect_worker();
    threads.start_detached("merge", move || worker.run())?;
    let store =
        store::shell::Wiring { requests: submitted, api: api_outlet, sync: sync_outlet, tip, jobs, pulse: for_store };
    let stop = start_threads(parts, threads, api, store, sync, watching)?;
    Ok(RunningNode { stop, pulses, outlets })
}

fn start_threads(
    parts: Components,
    threads: &mut Threads,
    api: api::shell::Wiring,
    store: store::shell::Wiring,
    sync: sync::shell::Wiring,
    watching: Sender<()>,
) -> Result<api::shell::Stop, Error> {
    let Components { store: documents, sync: links, api: calls, udp, clients, .. } = parts;
    let (stop, sync_waker) = (clients.stop(), udp.waker());
    threads.start("api", move || {
        let served = clients.run(calls, api);
        // The watcher's only listener is gone, so it may end.
        drop(watching);
        // The sync thread notices the closed channel when it wakes.
        served.and(sync_waker.wake()).map_err(|cause| cause.to_string())
    })?;
    threads.start("store", move || {
        store::shell::run(documents, &store);
        Ok(())
    })?;
    threads.start("sync", move || sync::shell::run(links, udp, sync).map_err(|cause| cause.to_string()))?;
    Ok(stop)
}

/// Starts the watcher if there is an agent to watch. It ends when the returned sender is dropped, or when the api thread has
/// closed its connection. Its end is not waited for, because the agent may delay it.
fn start_watcher(
    threads: &Threads,
    parts: &mut Components,
    pulse: Option<Arc<ThreadWatchdog>>,
) -> Result<Sender<()>, Error> {
    let (watching, stop) = bounded(0);
    if let (Some(watcher), Some(pulse)) = (parts.watcher.take(), pulse) {
        let node = parts.clients.connect_watcher();
        let node = node.map_err(|cause| Error::Machine("the watcher's connection".to_owned(), cause))?;
        threads.start_detached("watcher", move || watcher.run(node, &stop, &pulse))?;
    }
    Ok(watching)
}

/// Starts the relay, if this node is one. It ends when the sync thread, which controls it, is gone.
fn start_relay(
    threads: &mut Threads,
    parts: &mut Components,
    pulse: Option<Arc<ThreadWatchdog>>,
) -> Result<Option<sync::shell::OwnRelay>, Error> {
    let (Some(RelayPart { relay, socket, .. }), Some(pulse)) = (parts.relay.take(), pulse) else { return Ok(None) };
    let ((orders, ordered), (silent, silenced)) = (bounded(ORDERS), bounded(ORDERS));
    let (waker, active) = (socket.waker(), parts.sync.is_active());
    let wiring = relay::shell::Wiring { orders: ordered, silent, waiting: Some(parts.udp.waker()), pulse };
    threads
        .start("relay", move || relay::shell::run(relay, socket, &wiring, active).map_err(|cause| cause.to_string()))?;
    Ok(Some(sync::shell::OwnRelay { orders, waker, silenced }))
}

fn start_resolvers(
    threads: &mut Threads,
    udp: &crate::udp::Socket,
) -> Result<(Sender<String>, Receiver<resolver::Resolved>), Error> {
    let (names, asked) = bounded::<String>(resolver::NAMES);
    let (answers, resolved) = bounded(resolver::NAMES);
    for _ in 0..resolver::WORKERS {
        let (asked, answers, waker) = (asked.clone(), answers.clone(), udp.waker());
        threads.start_detached("resolver", move || resolver::run(&asked, &answers, &waker))?;
    }
    Ok((names, resolved))
}
