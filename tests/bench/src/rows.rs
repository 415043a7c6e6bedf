//! All rows of the table, one file per kind of measurement.

mod agents;
mod arrays;
mod beats;
mod calls;
mod catch_up;
mod clients;
mod commands;
mod event_streams;
mod events;
mod first_sync;
mod fleet;
mod heartbeats;
mod http;
mod idle;
mod links;
mod memory;
mod old_documents;
mod radio;
mod reads;
mod reconnect;
mod relay;
mod roaming;
mod size;
mod slow_disk;
mod start;
mod watcher;
mod wear;
mod writes;

use crate::row::Row;

/// Returns the rows in the order of the table.
pub(crate) fn all() -> Vec<Box<dyn Row>> {
    vec![
        Box::new(calls::Latency),
        Box::new(calls::Rate),
        Box::new(http::Connect),
        Box::new(http::Grpc),
        Box::new(reads::Get),
        Box::new(slow_disk::Reads),
        Box::new(writes::Durable),
        Box::new(wear::Wear),
        Box::new(old_documents::Edited),
        Box::new(arrays::Arrays),
        Box::new(clients::Together),
        Box::new(events::Delivery),
        Box::new(first_sync::FirstSync),
        Box::new(catch_up::CatchUp),
        Box::new(reconnect::Reconnect),
        Box::new(relay::Relayed),
        Box::new(relay::Forwarded),
        Box::new(roaming::PathRestored),
        Box::new(radio::Radio),
        Box::new(links::Thousand),
        Box::new(heartbeats::Heartbeats),
        Box::new(agents::Streams),
        Box::new(commands::Commands),
        Box::new(event_streams::EventStreams),
        Box::new(beats::Unchanged),
        Box::new(watcher::Watched),
        Box::new(fleet::Quiet),
        Box::new(memory::Resident),
        Box::new(old_documents::Loaded),
        Box::new(idle::Wakeups),
        Box::new(start::Start),
        Box::new(size::Binary),
    ]
}
