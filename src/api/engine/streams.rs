//! Subscriptions: scheduling in turns, one bounded turn per stream.

use peat_ipc::method::Response;

use super::Engine;
use crate::api::call::{Call, CallStage};
use crate::api::connection::ConnectionId;
use crate::api::feed::Progress;
use crate::clock::Now;

impl Engine {
    /// Adds credit to a stream.
    pub(super) fn grant(&mut self, now: Now, id: ConnectionId, call: u64, items: u32) {
        let number = self.connections.get(&id).and_then(|connection| connection.calls.get(&call).copied());
        // Credit for a call that has just ended may still arrive.
        let Some(number) = number else { return };
        match self.calls.get_mut(&number).map(|call| &mut call.stage) {
            Some(CallStage::Streaming(feed)) => feed.grant(items),
            Some(CallStage::Watching(watch)) => watch.grant(items),
            Some(CallStage::Link(link)) => link.grant(items),
            _ => return,
        }
        self.advance_stream(now, number);
    }

    /// Marks a call as streaming; over HTTP the head is sent.
    pub(super) fn begin_stream(&mut self, id: ConnectionId, call: u64) {
        #[cfg(feature = "http")]
        if let Some((http, out)) = self.connections.get_mut(&id).and_then(|connection| connection.http()) {
            http.begin(self.latest.mono, out, call, None);
            self.queue_output(id);
            self.settle(id);
        }
        #[cfg(not(feature = "http"))]
        let _ = (id, call);
    }

    /// Queues a turn for each stream of a connection, because its output buffer has room again.
    pub(super) fn continue_streams(&mut self, id: ConnectionId) {
        if self.streams.is_empty() && self.watchers.is_empty() && self.links.len() == 0 && !self.has_listeners() {
            return;
        }
        let Some(connection) = self.connections.get(&id) else { return };
        for number in connection.calls.values() {
            let stage = self.calls.get(number).map(|call| &call.stage);
            let streams = match stage {
                Some(CallStage::Streaming(_) | CallStage::Watching(_) | CallStage::Link(_)) => true,
                #[cfg(feature = "http")]
                Some(CallStage::Events(_)) => true,
                _ => false,
            };
            if streams && !self.busy_streams.contains(number) {
                self.busy_streams.push_back(*number);
            }
        }
    }

    /// Returns true if an agent listens to server-sent events.
    fn has_listeners(&self) -> bool {
        #[cfg(feature = "http")]
        return !self.web.listeners.is_empty();
        #[cfg(not(feature = "http"))]
        false
    }

    pub(super) fn advance_all_streams(&mut self, now: Now) {
        let numbers: Vec<u64> = self.streams.iter().copied().collect();
        for number in numbers {
            self.advance_stream(now, number);
        }
    }

    /// Gives one more turn to each stream that did not finish its last one.
    pub(super) fn advance_busy_streams(&mut self, now: Now) {
        for _ in 0..self.busy_streams.len() {
            let Some(number) = self.busy_streams.pop_front() else { return };
            self.advance_stream(now, number);
        }
    }

    /// Sends a stream's pending items, for one turn.
    pub(super) fn advance_stream(&mut self, now: Now, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let feed = match &mut call.stage {
            CallStage::Streaming(feed) => feed,
            CallStage::Watching(_) => return self.advance_watch(now, number),
            CallStage::Link(_) => return self.advance_link(number),
            #[cfg(feature = "http")]
            CallStage::Events(_) => return self.advance_events(now, number),
            _ => return,
        };
        let Some(connection) = self.connections.get_mut(&call.connection) else { return };
        if !connection.has_room_for(call.id) {
            return;
        }
        // Over HTTP the client's flow-control windows take the place of credit.
        if connection.speaks_http() {
            feed.grant(u32::MAX);
        }
        let (id, sent) = (call.connection, connection.owed());
        let most = connection.longest_item(feed.max_change_bytes());
        let progress = self.view.snapshot().and_then(|snapshot| {
            feed.advance(snapshot, most, |change| {
                let length = peat_ipc::prost::Message::encoded_len(change);
                connection.put_item(now, call.id, length, |out| peat_ipc::prost::Message::encode_raw(change, out))
            })
        });
        if connection.owed() != sent {
            self.queue_output(id);
            self.settle(id);
        }
        match progress {
            Ok(Progress::More) if !self.busy_streams.contains(&number) => self.busy_streams.push_back(number),
            Ok(_) => {}
            Err(error) => self.finish(now, number, Err::<&Response, _>(&error)),
        }
    }

    /// Continues streams in the new run after the store's database was reopened, where possible.
    pub(super) fn move_streams(&mut self, now: Now) {
        let numbers: Vec<u64> = self.streams.iter().copied().collect();
        for number in numbers {
            let run = self.view.run();
            let Some(Call { stage: CallStage::Streaming(feed), .. }) = self.calls.get_mut(&number) else { continue };
            let moved = self.view.snapshot().and_then(|snapshot| feed.continue_in(run, snapshot));
            match moved {
                Ok(()) => self.advance_stream(now, number),
                Err(error) => self.finish(now, number, Err::<&Response, _>(&error)),
            }
        }
    }
}
