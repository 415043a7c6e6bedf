//! Streams of one link, which are its lanes. A lane is opened once, lives as long as its link, and is never ended alone: a peer
//! that ends one has broken the protocol.

use quinn_proto::{Connection, Dir, ReadError, StreamEvent, StreamId};

use crate::sync::link::{Lane, PerLane};

/// Violation of the rules of lanes by a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Broken {
    UnknownLane(u8),
    SecondStream(Lane),
    Ended(Lane),
    Refused,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::UnknownLane(byte) => write!(f, "a stream begins with {byte}, which is no lane"),
            Broken::SecondStream(lane) => write!(f, "a second stream for the {lane} lane"),
            Broken::Ended(lane) => write!(f, "the {lane} lane was ended"),
            Broken::Refused => write!(f, "a lane was refused"),
        }
    }
}

/// Set of lanes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct LaneSet(u8);

impl LaneSet {
    /// Adds a lane; returns true if it was not in the set.
    pub(super) fn insert(&mut self, lane: Lane) -> bool {
        let before = self.0;
        self.0 |= 1 << lane as u8;
        before != self.0
    }

    pub(super) fn remove(&mut self, lane: Lane) {
        self.0 &= !(1 << lane as u8);
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Lane> {
        Lane::ALL.into_iter().filter(move |lane| self.0 & 1 << *lane as u8 != 0)
    }
}

/// Lanes affected by a stream event.
#[derive(Debug, Default)]
pub(super) struct Activity {
    pub(super) readable: LaneSet,
    pub(super) writable: LaneSet,
}

#[derive(Clone, Copy, Debug)]
struct Outgoing {
    stream: StreamId,
    /// True once its first byte, the lane's number, is written.
    named: bool,
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    outgoing: PerLane<Option<Outgoing>>,
    incoming: PerLane<Option<StreamId>>,
    /// Streams of which the first byte has not arrived.
    unnamed: Vec<StreamId>,
}

impl Lanes {
    /// Opens the control lane of the dialler; the acceptor learns of it with the first bytes.
    pub(super) fn open_control(&mut self, conn: &mut Connection) -> Result<(), Broken> {
        let stream = conn.streams().open(Dir::Bi).ok_or(Broken::Refused)?;
        self.take_control(conn, stream);
        Ok(())
    }

    pub(super) fn has_control(&self) -> bool {
        self.incoming[Lane::Control].is_some()
    }

    fn take_control(&mut self, conn: &mut Connection, stream: StreamId) {
        prioritise(conn, stream, Lane::Control);
        self.outgoing[Lane::Control] = Some(Outgoing { stream, named: true });
        self.incoming[Lane::Control] = Some(stream);
    }

    /// Writes what fits now; returns the number of bytes. If that is not all, an [`Activity::writable`] follows.
    pub(super) fn write(&mut self, conn: &mut Connection, lane: Lane, bytes: &[u8]) -> usize {
        let Some(outgoing) = self.outgoing(conn, lane) else { return 0 };
        if !outgoing.named {
            if conn.send_stream(outgoing.stream).write(&[lane as u8]) != Ok(1) {
                return 0;
            }
            self.outgoing[lane] = Some(Outgoing { named: true, ..outgoing });
        }
        let mut written = 0;
        while written < bytes.len() {
            match conn.send_stream(outgoing.stream).write(&bytes[written..]) {
                Ok(more) => written += more,
                Err(_) => break,
            }
        }
        written
    }

    fn outgoing(&mut self, conn: &mut Connection, lane: Lane) -> Option<Outgoing> {
        if self.outgoing[lane].is_none() && lane != Lane::Control {
            let stream = conn.streams().open(Dir::Uni)?;
            prioritise(conn, stream, lane);
            self.outgoing[lane] = Some(Outgoing { stream, named: false });
        }
        self.outgoing[lane]
    }

    /// Appends at most `max` bytes; returns true if there may be more.
    pub(super) fn read(
        &mut self,
        conn: &mut Connection,
        lane: Lane,
        into: &mut Vec<u8>,
        max: usize,
    ) -> Result<bool, Broken> {
        let Some(stream) = self.incoming[lane] else { return Ok(false) };
        let mut recv = conn.recv_stream(stream);
        let mut chunks = recv.read(true).map_err(|_| Broken::Ended(lane))?;
        let mut left = max;
        while left > 0 {
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left -= chunk.bytes.len();
                    into.extend_from_slice(&chunk.bytes);
                }
                Err(ReadError::Blocked) => return Ok(false),
                Ok(None) | Err(ReadError::Reset(_)) => return Err(Broken::Ended(lane)),
            }
        }
        Ok(true)
    }

    #[expect(clippy::needless_pass_by_value, reason = "an event is handled once")]
    pub(super) fn on_event(&mut self, conn: &mut Connection, event: StreamEvent) -> Result<Activity, Broken> {
        let mut activity = Activity::default();
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => self.accept_control(conn, &mut activity)?,
            StreamEvent::Opened { dir: Dir::Uni } => {
                while let Some(stream) = conn.streams().accept(Dir::Uni) {
                    self.unnamed.push(stream);
                }
                self.name_streams(conn, &mut activity)?;
            }
            StreamEvent::Readable { id } => match self.lane_of(id) {
                Some(lane) => drop(activity.readable.insert(lane)),
                None => self.name_streams(conn, &mut activity)?,
            },
            StreamEvent::Writable { id } => activity.writable = self.writable(|open| open.stream == id),
            StreamEvent::Available { .. } => self.unopened(&mut activity),
            StreamEvent::Stopped { .. } => return Err(Broken::Refused),
            StreamEvent::Finished { .. } => {}
        }
        Ok(activity)
    }

    /// Returns the lane that the peer sends on this stream.
    fn lane_of(&self, id: StreamId) -> Option<Lane> {
        self.incoming.iter().find(|(_, stream)| **stream == Some(id)).map(|(lane, _)| lane)
    }

    fn accept_control(&mut self, conn: &mut Connection, activity: &mut Activity) -> Result<(), Broken> {
        while let Some(stream) = conn.streams().accept(Dir::Bi) {
            if self.has_control() {
                return Err(Broken::SecondStream(Lane::Control));
            }
            self.take_control(conn, stream);
            activity.readable.insert(Lane::Control);
        }
        Ok(())
    }

    fn name_streams(&mut self, conn: &mut Connection, activity: &mut Activity) -> Result<(), Broken> {
        for stream in std::mem::take(&mut self.unnamed) {
            let Some(byte) = first_byte(conn, stream)? else {
                self.unnamed.push(stream);
                continue;
            };
            let lane = Lane::from_byte(byte).ok_or(Broken::UnknownLane(byte))?;
            if self.incoming[lane].replace(stream).is_some() {
                return Err(Broken::SecondStream(lane));
            }
            activity.readable.insert(lane);
        }
        Ok(())
    }

    fn writable(&self, wanted: impl Fn(&Outgoing) -> bool) -> LaneSet {
        let mut lanes = LaneSet::default();
        for lane in Lane::ALL {
            if self.outgoing[lane].as_ref().is_some_and(&wanted) {
                lanes.insert(lane);
            }
        }
        lanes
    }

    /// Marks lanes that could not be opened as writable, because the peer allows more streams now.
    fn unopened(&self, activity: &mut Activity) {
        for lane in Lane::ALL.into_iter().filter(|lane| self.outgoing[*lane].is_none()) {
            activity.writable.insert(lane);
        }
    }
}

/// Sets the priority of a lane. Control and commands precede everything. The other lanes share the rest packet by packet: with
/// strict priorities a busy lane would starve those below it.
fn prioritise(conn: &mut Connection, stream: StreamId, lane: Lane) {
    let priority = match lane {
        Lane::Control => 2,
        Lane::Command => 1,
        Lane::Merged | Lane::Latest | Lane::Bulk => 0,
    };
    conn.send_stream(stream).set_priority(priority).expect("the stream was just opened");
}

fn first_byte(conn: &mut Connection, stream: StreamId) -> Result<Option<u8>, Broken> {
    let mut recv = conn.recv_stream(stream);
    let mut chunks = recv.read(true).map_err(|_| Broken::Refused)?;
    match chunks.next(1) {
        Ok(Some(chunk)) => Ok(chunk.bytes.first().copied()),
        Err(ReadError::Blocked) => Ok(None),
        Ok(None) | Err(ReadError::Reset(_)) => Err(Broken::Refused),
    }
}
