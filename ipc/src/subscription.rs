//! A subscription as a blocking iterator that grants credit as items are consumed.

use std::borrow::BorrowMut;
use std::marker::PhantomData;

use prost::Message;

use crate::sidecar::DocumentChange;
use crate::{Client, Error};

/// Number of items the node may send ahead of the consumer. Small enough to bound the memory of a paused consumer, large enough
/// to keep the connection busy.
pub(crate) const WINDOW: u32 = 256;

/// Iterator of the items of a stream, as returned by [`Client::subscribe`] and [`Client::into_subscription`]; `M` is the type
/// of an item. Ends after the first error. Dropping it cancels the call and leaves the client usable.
#[derive(Debug)]
pub struct Subscription<C: BorrowMut<Client>, M: Message + Default = DocumentChange> {
    client: C,
    call: u64,
    /// Number of items consumed since credit was last granted.
    taken: u32,
    ended: bool,
    items: PhantomData<fn() -> M>,
}

impl<C: BorrowMut<Client>, M: Message + Default> Subscription<C, M> {
    pub(crate) fn new(client: C, call: u64) -> Subscription<C, M> {
        Subscription { client, call, taken: 0, ended: false, items: PhantomData }
    }

    /// Blocks until the next change; `Ok(None)` if the node has ended the stream.
    ///
    /// # Errors
    /// The node rejected or ended the subscription with an error (OUT_OF_RANGE: the position cannot be resumed, request a
    /// snapshot), or the connection failed.
    pub fn next_change(&mut self) -> Result<Option<M>, Error> {
        if self.ended {
            return Ok(None);
        }
        self.grant()?;
        let item = self.client.borrow_mut().next_item::<M>(self.call);
        match &item {
            Ok(Some(_)) => self.taken += 1,
            _ => self.ended = true,
        }
        item
    }

    /// Grants credit for consumed items once they are half a window: one small write for many items.
    fn grant(&mut self) -> Result<(), Error> {
        if self.taken >= WINDOW / 2 {
            self.client.borrow_mut().grant(self.call, self.taken)?;
            self.taken = 0;
        }
        Ok(())
    }
}

impl<C: BorrowMut<Client>, M: Message + Default> Iterator for Subscription<C, M> {
    type Item = Result<M, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_change().transpose()
    }
}

impl<C: BorrowMut<Client>, M: Message + Default> Drop for Subscription<C, M> {
    fn drop(&mut self) {
        if !self.ended {
            // If the cancellation cannot be written, the connection is failing, which ends the call too.
            let _ = self.client.borrow_mut().cancel(self.call);
        }
    }
}
