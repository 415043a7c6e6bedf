//! Handshake of a session: proof, hello, plan.

use std::collections::BTreeSet;

use ring::digest;

use super::{LocalNode, PeerHello, Report, Session, SessionError, SessionPhase};
use crate::clock::Now;
use crate::limits::LATEST_COLLECTIONS;
use crate::store::fingerprint::Fingerprint;
use crate::store::{self, Key, Kind, PeerRun, PerKind, Reader, RunId, Snapshot};
use crate::sync::convert;
use crate::sync::inbox::Inbox;
use crate::sync::link::{CloseCode, Lane};
use crate::sync::mesh::{self, Auth, Hello, Plan, message::Body};
use crate::sync::outbox::{Outbox, Start};
use crate::sync::peers::NAME_CHARACTERS;

/// Plan of one end.
#[derive(Clone, Copy, Debug)]
pub(super) struct SyncPlan {
    reconcile: bool,
    /// Fingerprint of all records of that end; `None` if some of them do not cross the link.
    fingerprint: Option<Fingerprint>,
}

impl SyncPlan {
    fn message(self) -> Plan {
        let fingerprint = self.fingerprint.map(Vec::from).unwrap_or_default();
        Plan { reconcile: self.reconcile, fingerprint: fingerprint.into() }
    }

    /// Parses the plan of a peer.
    fn parse(plan: &Plan) -> Result<SyncPlan, &'static str> {
        let fingerprint = match plan.fingerprint.as_ref() {
            [] => None,
            bytes => Some(bytes.try_into().map_err(|_| "a fingerprint that is not 8 bytes")?),
        };
        Ok(SyncPlan { reconcile: plan.reconcile, fingerprint })
    }

    /// Returns true if both ends hold the same records, false if not; `None` if the fingerprints cannot tell.
    fn equals(self, theirs: SyncPlan) -> Option<bool> {
        Some(self.fingerprint? == theirs.fingerprint?)
    }
}

/// Plan that was sent to the peer.
#[derive(Debug)]
pub(super) struct SentPlan {
    wish: SyncPlan,
    /// Newest sequence number that the fingerprint covers.
    visible: u64,
    /// Positions after which the peer lacks records of this node; `None` if only a comparison can tell. Later commits must not
    /// change them: the peer acts on the plan as it was sent.
    resume: Option<PerKind<u64>>,
}

impl Session {
    /// Sends this node's proof (empty without a key): the dialler at once, the acceptor once the dialler is admitted.
    pub(crate) fn prove(&mut self, proof: Vec<u8>) {
        self.say(Lane::Control, Body::Auth(Auth { proof: proof.into() }));
    }

    /// Sends the hello, once the peer is admitted.
    ///
    /// # Errors
    /// The store could not be read.
    pub(crate) fn admit(&mut self, now: Now, ours: &LocalNode, reader: &Reader) -> Result<(), SessionError> {
        self.stage = SessionPhase::Greeting;
        let snapshot = reader.snapshot().map_err(|error| SessionError::store(&error))?;
        let cursors = snapshot.cursors(&self.peer).map_err(|error| SessionError::store(&error))?;
        let hello = Hello {
            run: reader.run().0.to_vec().into(),
            database: reader.database().to_vec().into(),
            node_id: ours.node_id.clone(),
            wall_clock_ms: now.wall_ms,
            latest_collections: ours.latest.iter().cloned().collect(),
            cursors: cursors.iter().map(wire_cursor).collect(),
            records: records(&snapshot),
            app_id: ours.app_id.clone(),
        };
        self.say(Lane::Control, Body::Hello(hello));
        Ok(())
    }

    pub(super) fn on_hello(
        &mut self,
        now: Now,
        hello: Hello,
        ours: &LocalNode,
        reader: &Reader,
    ) -> Result<(), SessionError> {
        if hello.app_id != ours.app_id {
            let reason = format!("app id '{}' there, '{}' here (--app-id)", hello.app_id, ours.app_id);
            return Err(SessionError::new(CloseCode::NotAdmitted, reason));
        }
        if hello.latest_collections.len() > LATEST_COLLECTIONS || hello.cursors.len() > Kind::ALL.len() {
            return Err(SessionError::protocol("names more collections or cursors than a node has"));
        }
        let run = RunId(hello.run.as_ref().try_into().map_err(|_| "a run id that is not 16 bytes")?);
        let database = hello.database.as_ref().try_into().map_err(|_| "a database id that is not 16 bytes")?;
        let theirs: BTreeSet<String> = hello.latest_collections.into_iter().collect();
        if theirs.iter().any(|name| Key::new(name, "x").is_err()) {
            return Err(SessionError::protocol("names a collection that cannot be"));
        }
        let mismatched: BTreeSet<String> = theirs.symmetric_difference(&ours.latest).cloned().collect();
        let skew_ms = hello.wall_clock_ms.saturating_sub(now.wall_ms);
        let name = hello.node_id.chars().filter(|c| !c.is_control()).take(NAME_CHARACTERS).collect();
        self.reports.push(Report::Met { run, skew_ms, name, mismatched: mismatched.iter().cloned().collect() });
        let digest = digest_of(&mismatched);
        let excluded = (mismatched, digest);
        self.met = Some(PeerHello { run, database, records: hello.records, cursors: hello.cursors, excluded });
        self.stage = SessionPhase::Planning;
        self.plan(reader)
    }

    /// Decides whether the cursors in the peer's hello suffice, and sends the plan.
    fn plan(&mut self, reader: &Reader) -> Result<(), SessionError> {
        let snapshot = reader.snapshot().map_err(|error| SessionError::store(&error))?;
        let resume = self.resume_point(reader, &snapshot).map_err(|error| SessionError::store(&error))?;
        if self.went_back(reader, &snapshot).map_err(|error| SessionError::store(&error))? {
            self.reports.push(Report::WentBack);
        }
        let all_travels = self.met.as_ref().is_some_and(|met| met.excluded.0.is_empty());
        let fingerprint = all_travels.then(|| snapshot.fingerprint());
        let wish = SyncPlan { reconcile: self.audit || resume.is_none(), fingerprint };
        self.plan = Some(SentPlan { wish, visible: snapshot.visible(), resume });
        self.say(Lane::Control, Body::Plan(wish.message()));
        Ok(())
    }

    pub(super) fn on_plan(&mut self, plan: &Plan, ours: &LocalNode, reader: &Reader) -> Result<(), SessionError> {
        self.theirs = Some(SyncPlan::parse(plan)?);
        self.start_if_planned(ours, reader)
    }

    /// Returns the value of [`SentPlan::resume`].
    fn resume_point(&self, reader: &Reader, snapshot: &Snapshot) -> Result<Option<PerKind<u64>>, store::Error> {
        let Some(met) = &self.met else { return Ok(None) };
        let mut after = PerKind::default();
        let mut known = false;
        for cursor in &met.cursors {
            if cursor.database != reader.database().as_slice() || cursor.excluded != met.excluded.1 {
                continue;
            }
            let (Ok(kind), Ok(run)) = (convert::kind(cursor.kind), cursor.run.as_ref().try_into()) else { continue };
            // One cursor into history that this node has lost leaves only a comparison.
            if !snapshot.token_is_known(RunId(run), cursor.sequence.max(cursor.horizon))? {
                return Ok(None);
            }
            known = true;
            after[kind] = cursor.sequence;
        }
        // A side without records lacks everything, which a comparison would not show any better.
        let nothing_to_compare = met.records == 0 || records(snapshot) == 0;
        Ok((known || nothing_to_compare).then_some(after))
    }

    /// Returns true if the peer has changes of this database from a run that the database does not list, and more of them than
    /// it holds: the database was restored from a backup.
    fn went_back(&self, reader: &Reader, snapshot: &Snapshot) -> Result<bool, store::Error> {
        let cursors = self.met.iter().flat_map(|met| &met.cursors);
        for cursor in cursors.filter(|cursor| cursor.database == reader.database().as_slice()) {
            let Ok(run) = cursor.run.as_ref().try_into() else { continue };
            if cursor.sequence > snapshot.visible() && !snapshot.token_is_known(RunId(run), 0)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn start_if_planned(&mut self, ours: &LocalNode, reader: &Reader) -> Result<(), SessionError> {
        let (Some(mine), Some(theirs), Some(met)) = (&self.plan, &self.theirs, &self.met) else { return Ok(()) };
        let peer = PeerRun { node: self.peer, run: met.run };
        let excluded = met.excluded.clone();
        let snapshot = reader.snapshot().map_err(|error| SessionError::store(&error))?;
        // Either side can require a comparison.
        let compares = mine.wish.reconcile || theirs.reconcile;
        let (equals, planned_at) = (mine.wish.equals(*theirs), mine.visible);
        let start = mine.resume.filter(|_| !compares).map_or(Start::Compare, Start::After);
        let lacks_all = met.records == 0;
        let is_equal = compares && equals == Some(true);
        // Commits since the fingerprint was taken are yet to be sent.
        let visible = if is_equal { planned_at } else { snapshot.visible() };
        let mut outbox = Outbox::new(peer, start, visible, lacks_all, excluded.0.clone());
        if is_equal {
            outbox.compared(visible);
        }
        self.inbox = Some(Inbox::new(peer, reader.run(), met.database, excluded));
        self.outbox = Some(outbox);
        self.stage = SessionPhase::Live;
        self.reports.push(Report::Live { compares });
        if compares && !is_equal {
            self.compare(ours, snapshot, equals == Some(false));
        }
        Ok(())
    }
}

fn wire_cursor(cursor: &store::Cursor) -> mesh::Cursor {
    mesh::Cursor {
        kind: u32::from(cursor.kind as u8),
        database: cursor.database.to_vec().into(),
        run: cursor.run.0.to_vec().into(),
        sequence: cursor.sequence,
        horizon: cursor.horizon,
        excluded: cursor.excluded,
    }
}

fn records(snapshot: &Snapshot) -> u64 {
    let counts = snapshot.counts();
    counts.live + counts.tombstones
}

/// Returns 0 for no collections; otherwise the first 8 bytes of SHA-256 over their names, each followed by a zero byte, or 1
/// for 0.
fn digest_of(collections: &BTreeSet<String>) -> u64 {
    if collections.is_empty() {
        return 0;
    }
    let mut context = digest::Context::new(&digest::SHA256);
    for name in collections {
        context.update(name.as_bytes());
        context.update(&[0]);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&context.finish().as_ref()[..8]);
    u64::from_be_bytes(first).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(fingerprint: &[u8]) -> Plan {
        Plan { reconcile: false, fingerprint: fingerprint.to_vec().into() }
    }

    #[test]
    fn a_fingerprint_has_eight_bytes_or_is_left_out() {
        for length in [1, 7, 9, 4 << 20] {
            assert!(SyncPlan::parse(&plan(&vec![1; length])).is_err(), "{length} bytes");
        }
        let [none, ones, twos] = [&[][..], &[1; 8], &[2; 8]].map(|bytes| SyncPlan::parse(&plan(bytes)).expect("whole"));
        assert_eq!((ones.equals(ones), ones.equals(twos)), (Some(true), Some(false)));
        assert_eq!((none.equals(none), none.equals(ones), ones.equals(none)), (None, None, None));
        assert_eq!(ones.message(), plan(&[1; 8]));
    }
}
