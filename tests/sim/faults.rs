//! The kinds of injected faults and unusual operations, and their counts.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! faults {
    ($($variant:ident $name:literal,)*) => {
        /// A kind of fault, or of unusual operation.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Fault { $($variant,)* }

        impl Fault {
            /// All kinds.
            pub const ALL: &'static [Fault] = &[$(Fault::$variant,)*];

            /// Returns the name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$variant => $name,)* }
            }
        }
    };
}

faults! {
    Crash "crash between commits",
    CrashInCommit "crash within a commit",
    WriteLost "unsynced write lost",
    WriteKept "unsynced write kept",
    WriteTorn "unsynced write torn",
    ReadError "read error",
    WriteError "write error",
    WritePartial "write error after part of it",
    SyncError "sync error",
    DiskFull "disk full",
    SlowSync "slow sync",
    DiskReplaced "disk replaced",
    LongMerge "merge beside the store thread",
    Overtaken "commit while a merge ran",
    BackupRestored "backup restored",
    Lost "datagram lost",
    Duplicated "datagram duplicated",
    Reordered "datagram overtaken",
    Throttled "datagram held back by a rate limit",
    QueueFull "datagram lost to a full queue",
    TooLong "datagram too long for the link",
    Cut "datagram into a cut link",
    OneWayCut "one-way cut",
    Partition "partition",
    Roamed "node carried to another network",
    RoamedUnseen "node carried to another network without noticing",
    Stranded "datagram to where a node was",
    Satellite "link by satellite",
    LinkRate "node with a link rate",
    ClockJump "wall clock jumped",
    ClockDrift "drifting clock",
    LookupFailed "look-up failed",
    LookupSlow "look-up slow",
    Silence "radio silence",
    Disconnected "peer disconnected",
    Restart "node restarted",
    Hangup "subscriber hung up",
    NodeLost "node lost for good",
    AgentCut "agent lost its stream at work",
    AgentMoved "agent moved to another node at work",
    AgentRestarted "agent restarted at work",
    WrittenEarly "written while nodes met",
    AgentEarly "agent reported where its command was not yet",
    AgentCancelled "agent asked to end its work",
    RelayCrash "relay crashed",
    RelayRestart "relay started anew",
    DirectCut "direct path cut beside a relay",
    DirectRestored "direct path restored beside a relay",
    Relayed "datagram forwarded by a relay",
    HotEdit "edit of a document that is edited as fast as it goes",
    Stopped "node stopped for a while, and let go on",
    SocketFull "datagram lost to the socket of a stopped node",
    Flapped "link that came or went again",
    MixedKinds "write to a collection of another kind elsewhere",
    LongKeys "patch of fields with long keys",
    TooLarge "document that no link carries",
    StalePatch "patch with a superseded base",
    StaleWhole "whole put with a superseded base",
    LargeArray "array of 100 or more elements edited",
    EveryElement "every element of an array edited",
    QuickEdit "patch right after another of the same document",
    BlindCreation "document created by a node that knew nothing of it as others did",
    Compaction "document compacted while others may edit it",
    MergeCompared "merged version compared with the model",
    MergeUnknown "merged version with a write nobody was answered for",
}

/// Number of injections of each kind, shared by everything in one simulated world.
#[derive(Debug)]
pub struct Tally {
    counts: Vec<AtomicU64>,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally { counts: Fault::ALL.iter().map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Tally {
    /// Counts one injection.
    pub fn count(&self, fault: Fault) {
        self.counts[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the count so far.
    pub fn of(&self, fault: Fault) -> u64 {
        self.counts[fault as usize].load(Ordering::Relaxed)
    }

    /// Returns the kinds in `wanted` that were never injected.
    pub fn never(&self, wanted: &[Fault]) -> Vec<&'static str> {
        wanted.iter().filter(|fault| self.of(**fault) == 0).map(|fault| fault.name()).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let injected = Fault::ALL.iter().filter(|fault| self.of(**fault) > 0);
        injected.into_iter().try_for_each(|fault| writeln!(f, "  {:>9}  {}", self.of(*fault), fault.name()))
    }
}
