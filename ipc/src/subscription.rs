//! A subscription as a blocking iterator that grants credit as it consumes.

use std::borrow::BorrowMut;
use std::marker::PhantomData;

use prost::Message;

use crate::sidecar::DocumentChange;
use crate::{Client, Error};

/// Items the node may send ahead of the consumer. Small enough that a consumer that pauses holds little, large enough that
/// the link stays full.
pub(crate) const WINDOW: u32 = 256;

/// Changes, as [`Client::subscribe`] and [`Client::into_subscription`] give them; ends after the first error. Dropping it
/// cancels the call, and the client can be used again. `M` is what the stream is made of.
#[derive(Debug)]
pub struct Subscription<C: BorrowMut<Client>, M: Message + Default = DocumentChange> {
    client: C,
    call: u64,
    /// Items taken since credit was last granted.
    taken: u32,
    ended: bool,
    items: PhantomData<fn() -> M>,
}

impl<C: BorrowMut<Client>, M: Message + Default> Subscription<C, M> {
    pub(crate) fn new(client: C, call: u64) -> Subscription<C, M> {
        Subscription { client, call, taken: 0, ended: false, items: PhantomData }
    }

    /// Waits for the next change. `Ok(None)`: the node ended the stream.
    ///
    /// # Errors
    /// The node refused or ended the subscription with an error (OUT_OF_RANGE: resume is impossible, take a
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

    /// Grants again what was taken, by half windows: one small write for many items.
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
            // A connection that cannot take the cancellation is ending, and the call with it.
            let _ = self.client.borrow_mut().cancel(self.call);
        }
    }
}
