//! A subscription that outlives its connection: resumes after the last change, and starts from a snapshot where that is
//! impossible.

use std::collections::VecDeque;

use crate::agents::Backoff;
use crate::sidecar::{ChangeType, DocumentChange, SubscribeRequest};
use crate::{Client, Code, Error, Subscription, Target};

/// Event of a subscription that resumes.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed {
    /// A document has changed or was deleted.
    Change(DocumentChange),
    /// The position was lost: discard the known state. A snapshot follows, up to a change of type SNAPSHOT_END; documents that
    /// are not in it are deleted.
    Anew,
}

/// Iterator of changes that survives restarts of the node and losses of the connection.
///
/// ```no_run
/// use peat_ipc::{Followed, Following, sidecar::SubscribeRequest};
///
/// let request = SubscribeRequest { collections: vec!["platforms".into()], snapshot: true, ..Default::default() };
/// for followed in Following::new("unix:///run/peat-node.sock".parse()?, request) {
///     match followed? {
///         Followed::Change(change) => println!("{}/{}", change.collection, change.doc_id),
///         Followed::Anew => println!("from the beginning"),
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Following {
    target: Target,
    token: String,
    request: SubscribeRequest,
    subscription: Option<Subscription<Client>>,
    backoff: Backoff,
    told: VecDeque<Followed>,
    /// True from the start of a snapshot to its end. A snapshot cannot be resumed, only restarted.
    in_snapshot: bool,
    ended: bool,
}

impl Following {
    /// Creates a subscription to what `request` selects. Connects when the first change is requested.
    #[must_use]
    pub fn new(target: Target, request: SubscribeRequest) -> Following {
        Following {
            target,
            token: String::new(),
            in_snapshot: request.snapshot,
            request,
            subscription: None,
            backoff: Backoff::default(),
            told: VecDeque::new(),
            ended: false,
        }
    }

    /// Sends `token` with every subscription.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Following {
        self.token = token.into();
        self
    }

    /// Blocks until the next change. Reconnects as often as needed.
    ///
    /// # Errors
    /// The node rejects the subscription itself; a retry would fail again.
    pub fn next_change(&mut self) -> Result<Followed, Error> {
        loop {
            if let Some(followed) = self.told.pop_front() {
                return Ok(followed);
            }
            match self.try_next() {
                Ok(Some(change)) => return Ok(self.note(change)),
                Ok(None) => self.pause(),
                Err(Error::Call(error)) if error.code == Code::OutOfRange => self.begin_anew(),
                Err(Error::Call(error)) if lasting(error.code) => return Err(Error::Call(error)),
                Err(_) => self.pause(),
            }
        }
    }

    fn try_next(&mut self) -> Result<Option<DocumentChange>, Error> {
        let subscription = match &mut self.subscription {
            Some(subscription) => subscription,
            None => {
                let client = Client::connect(&self.target)?.with_token(self.token.clone());
                self.subscription.insert(client.into_subscription(&self.request)?)
            }
        };
        subscription.next_change()
    }

    fn note(&mut self, change: DocumentChange) -> Followed {
        self.backoff.reset();
        if change.change_type() == ChangeType::SnapshotEnd {
            self.in_snapshot = false;
        }
        // Items of a snapshot have no resumable position; its end has one.
        if !self.in_snapshot {
            self.request.snapshot = false;
            self.request.resume_after = change.sequence;
            self.request.resume_run.clone_from(&change.run);
        }
        Followed::Change(change)
    }

    fn begin_anew(&mut self) {
        self.subscription = None;
        (self.request.snapshot, self.in_snapshot) = (true, true);
        (self.request.resume_after, self.request.resume_run) = (0, Vec::new());
        self.told.push_back(Followed::Anew);
    }

    /// Drops the connection and waits before the next attempt. A partial snapshot is useless, and without a change there is no
    /// position to resume from, so both start from a snapshot.
    fn pause(&mut self) {
        let had = self.subscription.take().is_some();
        if had && (self.in_snapshot || self.request.resume_run.is_empty()) {
            self.begin_anew();
        }
        std::thread::park_timeout(self.backoff.pause());
    }
}

impl Iterator for Following {
    type Item = Result<Followed, Error>;

    /// Returns `None` after an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_change();
        self.ended = next.is_err();
        Some(next)
    }
}

/// Returns true if the node would reject the same request again.
fn lasting(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented | Code::NotFound
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_connection_lost_before_the_first_change_begins_with_a_snapshot() {
        let path = std::env::temp_dir().join(format!("peat-following-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let target = format!("unix://{}", path.display()).parse().unwrap();
        let followed = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut connection, _) = listener.accept().unwrap();
                let _request = connection.read(&mut [0; 1024]).unwrap();
            });
            Following::new(target, SubscribeRequest::default()).next_change()
        });
        std::fs::remove_file(&path).unwrap();
        assert_eq!(followed.unwrap(), Followed::Anew);
    }
}
