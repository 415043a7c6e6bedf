//! The durable state of an agent's commands, so that none runs twice across restarts.
//!
//! One file of records, each a length (4 bytes), an FNV-1a hash (8 bytes), both little-endian, and a protobuf message. Records
//! are appended, and synced before the append returns where a loss would matter. Once the file has outgrown its contents, it is
//! rewritten with the records that still count and replaced atomically. An incomplete record at the end was never acknowledged
//! and is dropped. Without a directory the state is kept in memory only.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message;

use crate::agent::CommandUpdate;
use crate::agent::command_update::Stage;
use crate::sidecar::Command;

const NAME: &str = "commands.ledger";
/// Growth allowed beyond twice the size after the last compaction, in bytes, before the next one.
const SLACK_BYTES: u64 = 1 << 20;
/// Maximum number of confirmed command ids that are remembered; the oldest are dropped.
const REMEMBERED_IDS: usize = 10_000;
/// Maximum number of stored results of interrupted work; the oldest are dropped.
const REMEMBERED_RESULTS: usize = 256;
const HEAD_BYTES: usize = 12;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, prost::Enumeration)]
#[repr(i32)]
enum LedgerKind {
    /// The agent that owns the ledger; the first record.
    Owner = 0,
    /// The command is accepted and the work has not begun. The body is the command.
    Accepted = 1,
    /// The command has started; from here on the work may have had effects.
    Started = 2,
    /// The command has ended, and the node may not know. The body is the update.
    Done = 3,
    /// The node has confirmed the end. Without a stage the command never began and may be pushed again.
    Settled = 4,
    /// The result of shared work; the body is the result.
    Result = 5,
    /// The result under this key is no longer needed.
    Forget = 6,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(enumeration = "LedgerKind", tag = "1")]
    kind: i32,
    /// Id of the command or the agent, or the content key.
    #[prost(string, tag = "2")]
    id: String,
    #[prost(bytes = "vec", tag = "3")]
    body: Vec<u8>,
    #[prost(enumeration = "Stage", tag = "4")]
    stage: i32,
    /// Time of a result, in Unix seconds.
    #[prost(int64, tag = "5")]
    at: i64,
}

impl Record {
    fn new(kind: LedgerKind, id: &str) -> Record {
        Record { kind: kind.into(), id: id.to_owned(), ..Record::default() }
    }
}

/// State of a command that the node has not confirmed as ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Open {
    /// Accepted and not started.
    Accepted(Command),
    /// Started and not ended.
    Started,
    /// Ended with this update.
    Done(CommandUpdate),
}

/// The records of one agent, in memory and on disk; see the module's documentation.
#[derive(Debug)]
pub(super) struct Ledger {
    owner: String,
    disk: Option<Disk>,
    open: BTreeMap<String, Open>,
    settled: BTreeMap<String, Stage>,
    order: VecDeque<String>,
    results: BTreeMap<String, (Vec<u8>, i64)>,
    results_order: VecDeque<String>,
}

#[derive(Debug)]
struct Disk {
    directory: PathBuf,
    /// Lock file, locked for the lifetime of the ledger.
    _lock: File,
    file: File,
    bytes: u64,
    compact_at: u64,
}

impl Ledger {
    /// Opens the ledger of agent `owner` in `directory`, which is created if missing.
    pub(super) fn open(owner: &str, directory: Option<&Path>) -> io::Result<Ledger> {
        let mut ledger = Ledger {
            owner: owner.to_owned(),
            disk: None,
            open: BTreeMap::new(),
            settled: BTreeMap::new(),
            order: VecDeque::new(),
            results: BTreeMap::new(),
            results_order: VecDeque::new(),
        };
        if let Some(directory) = directory {
            let lock = lock(directory)?;
            ledger.load(&directory.join(NAME))?;
            let (file, bytes) = ledger.rewrite(directory)?;
            let compact_at = 2 * bytes + SLACK_BYTES;
            ledger.disk = Some(Disk { directory: directory.to_owned(), _lock: lock, file, bytes, compact_at });
        }
        Ok(ledger)
    }

    /// Returns the commands that the node has not confirmed as ended.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = (&String, &Open)> {
        self.open.iter()
    }

    /// Returns the final stage of a command that the node has confirmed.
    pub(super) fn settled(&self, id: &str) -> Option<Stage> {
        self.settled.get(id).copied()
    }

    /// Returns the result of interrupted work and the time it was stored, in Unix seconds.
    pub(super) fn result(&self, key: &str) -> Option<(&[u8], i64)> {
        self.results.get(key).map(|(result, at)| (result.as_slice(), *at))
    }

    pub(super) fn accept(&mut self, command: &Command) -> io::Result<()> {
        self.append(Record { body: command.encode_to_vec(), ..Record::new(LedgerKind::Accepted, &command.id) }, true)
    }

    pub(super) fn start(&mut self, id: &str) -> io::Result<()> {
        self.append(Record::new(LedgerKind::Started, id), true)
    }

    pub(super) fn finish(&mut self, update: &CommandUpdate) -> io::Result<()> {
        self.append(Record { body: update.encode_to_vec(), ..Record::new(LedgerKind::Done, &update.command_id) }, true)
    }

    /// Records that the node has confirmed the end of a command; `None`: it never began. If a crash loses an unsynced record,
    /// the node is sent the update once more.
    pub(super) fn settle(&mut self, id: &str, stage: Option<Stage>, sync: bool) -> io::Result<()> {
        let stage = stage.unwrap_or(Stage::Unspecified).into();
        self.append(Record { stage, ..Record::new(LedgerKind::Settled, id) }, sync)
    }

    pub(super) fn keep_result(&mut self, key: &str, result: &[u8], at: i64) -> io::Result<()> {
        self.append(Record { body: result.to_vec(), at, ..Record::new(LedgerKind::Result, key) }, true)
    }

    pub(super) fn forget_result(&mut self, key: &str) -> io::Result<()> {
        if self.results.contains_key(key) { self.append(Record::new(LedgerKind::Forget, key), false) } else { Ok(()) }
    }

    fn append(&mut self, record: Record, sync: bool) -> io::Result<()> {
        if let Some(disk) = &mut self.disk {
            disk.append(&record, sync)?;
        }
        self.note(record)?;
        let Some(mut disk) = self.disk.take_if(|disk| disk.bytes > disk.compact_at) else { return Ok(()) };
        let rewritten = self.rewrite(&disk.directory);
        if let Ok((file, bytes)) = rewritten {
            (disk.file, disk.bytes, disk.compact_at) = (file, bytes, 2 * bytes + SLACK_BYTES);
        } else {
            // The existing file is intact; try again after more growth.
            disk.compact_at = disk.bytes + SLACK_BYTES;
        }
        self.disk = Some(disk);
        Ok(())
    }

    /// Applies one record to the state in memory.
    fn note(&mut self, record: Record) -> io::Result<()> {
        let kind = LedgerKind::try_from(record.kind).map_err(|_| damaged("a record of an unknown kind"))?;
        let Record { id, body, stage, at, .. } = record;
        match kind {
            LedgerKind::Owner if id == self.owner => {}
            LedgerKind::Owner => return Err(damaged(&format!("it belongs to agent '{id}', not '{}'", self.owner))),
            LedgerKind::Accepted => _ = self.open.insert(id, Open::Accepted(decode(&body)?)),
            LedgerKind::Started => _ = self.open.insert(id, Open::Started),
            LedgerKind::Done => _ = self.open.insert(id, Open::Done(decode(&body)?)),
            LedgerKind::Settled => self.note_settled(id, Stage::try_from(stage).unwrap_or(Stage::Unspecified)),
            LedgerKind::Result => {
                self.drop_result(&id);
                self.results_order.push_back(id.clone());
                self.results.insert(id, (body, at));
                if self.results.len() > REMEMBERED_RESULTS
                    && let Some(oldest) = self.results_order.pop_front()
                {
                    self.results.remove(&oldest);
                }
            }
            LedgerKind::Forget => self.drop_result(&id),
        }
        Ok(())
    }

    fn note_settled(&mut self, id: String, stage: Stage) {
        self.open.remove(&id);
        if stage == Stage::Unspecified {
            return;
        }
        if self.settled.insert(id.clone(), stage).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.settled.remove(&oldest);
        }
    }

    fn drop_result(&mut self, key: &str) {
        if self.results.remove(key).is_some() {
            self.results_order.retain(|other| other != key);
        }
    }

    /// Loads the file. Losing a record could run a command twice, so any damage other than an incomplete end is an error.
    fn load(&mut self, path: &Path) -> io::Result<()> {
        let bytes = match std::fs::read(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let mut rest = bytes.as_slice();
        while let Some((record, after)) = next_record(rest)? {
            if after.is_none() {
                break;
            }
            self.note(record)?;
            rest = after.unwrap_or_default();
        }
        Ok(())
    }

    /// Replaces the file with one that holds only the records that still count.
    fn rewrite(&self, directory: &Path) -> io::Result<(File, u64)> {
        let (path, new) = (directory.join(NAME), directory.join(format!("{NAME}.new")));
        let mut bytes = Vec::new();
        self.records().for_each(|record| put(&mut bytes, &record));
        // Write, sync, rename, sync the directory: after a crash the file is the old one or the new one, complete.
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new().append(true).create_new(true).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(directory)?.sync_all()?;
        Ok((file, bytes.len() as u64))
    }

    fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let settled = self.order.iter().map(|id| Record {
            stage: self.settled.get(id).copied().unwrap_or(Stage::Unspecified).into(),
            ..Record::new(LedgerKind::Settled, id)
        });
        let open = self.open.iter().map(|(id, open)| match open {
            Open::Accepted(command) => {
                Record { body: command.encode_to_vec(), ..Record::new(LedgerKind::Accepted, id) }
            }
            Open::Started => Record::new(LedgerKind::Started, id),
            Open::Done(update) => Record { body: update.encode_to_vec(), ..Record::new(LedgerKind::Done, id) },
        });
        let results = self.results_order.iter().filter_map(|key| {
            let (result, at) = self.results.get(key)?;
            Some(Record { body: result.clone(), at: *at, ..Record::new(LedgerKind::Result, key) })
        });
        std::iter::once(Record::new(LedgerKind::Owner, &self.owner)).chain(settled).chain(open).chain(results)
    }
}

impl Disk {
    /// Appends a record completely or not at all.
    fn append(&mut self, record: &Record, sync: bool) -> io::Result<()> {
        let mut bytes = Vec::new();
        put(&mut bytes, record);
        let written = self.file.write_all(&bytes);
        // A failed sync leaves it unknown whether the record is on disk, so it is undone like a failed write.
        let written = if sync { written.and_then(|()| self.file.sync_data()) } else { written };
        match written {
            Ok(()) => self.bytes += bytes.len() as u64,
            // Truncate a partial record, so that the records appended next stay readable.
            Err(_) => self.file.set_len(self.bytes)?,
        }
        written
    }
}

/// Locks the directory for this process.
fn lock(directory: &Path) -> io::Result<File> {
    std::fs::create_dir_all(directory)?;
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(directory.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let words = format!("{} is in use by another process", directory.display());
            Err(io::Error::new(io::ErrorKind::WouldBlock, words))
        }
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

fn put(out: &mut Vec<u8>, record: &Record) {
    let body = record.encode_to_vec();
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&fnv1a(&body).to_le_bytes());
    out.extend_from_slice(&body);
}

/// Returns the first record and the bytes after it; `None` in place of the bytes if the record is an incomplete end.
#[expect(clippy::type_complexity, reason = "used once")]
fn next_record(bytes: &[u8]) -> io::Result<Option<(Record, Option<&[u8]>)>> {
    let torn = Ok(Some((Record::default(), None)));
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else {
        return if bytes.is_empty() { Ok(None) } else { torn };
    };
    let (length, hash) = head.split_at(4);
    let length = length.try_into().map_or(0, u32::from_le_bytes) as usize;
    let Some((body, after)) = rest.split_at_checked(length) else { return torn };
    // If the file was extended on disk before its data was written, it ends in zeros.
    if bytes.iter().all(|byte| *byte == 0) {
        return torn;
    }
    if fnv1a(body).to_le_bytes() != hash {
        return if after.is_empty() { torn } else { Err(damaged("a record's hash does not fit it")) };
    }
    Ok(Some((decode(body)?, Some(after))))
}

fn decode<M: Message + Default>(bytes: &[u8]) -> io::Result<M> {
    M::decode(bytes).map_err(|cause| damaged(&cause.to_string()))
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{NAME} cannot be used: {why}"))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("peat-ledger-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    fn command(id: &str) -> Command {
        Command { id: id.into(), command_type: "test".into(), ..Command::default() }
    }

    fn done(id: &str) -> CommandUpdate {
        CommandUpdate { command_id: id.into(), stage: Stage::Completed.into(), ..CommandUpdate::default() }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let path = directory("restart");
        let mut ledger = Ledger::open("a1", Some(&path)).unwrap();
        ["c1", "c2", "c3", "c4"].iter().for_each(|id| ledger.accept(&command(id)).unwrap());
        ["c2", "c3", "c4"].iter().for_each(|id| ledger.start(id).unwrap());
        ["c3", "c4"].iter().for_each(|id| ledger.finish(&done(id)).unwrap());
        ledger.settle("c4", Some(Stage::Completed), false).unwrap();
        ledger.keep_result("k", b"1", 7).unwrap();
        drop(ledger);
        for _ in 0..2 {
            let ledger = Ledger::open("a1", Some(&path)).unwrap();
            let open: Vec<Open> = ledger.unfinished().map(|(_, open)| open.clone()).collect();
            assert_eq!(open, [Open::Accepted(command("c1")), Open::Started, Open::Done(done("c3"))]);
            assert_eq!((ledger.settled("c4"), ledger.settled("c1")), (Some(Stage::Completed), None));
            assert_eq!(ledger.result("k"), Some((&b"1"[..], 7)));
        }
    }

    #[test]
    fn an_incomplete_end_is_dropped_and_damage_before_it_is_an_error() {
        let path = directory("torn");
        let mut ledger = Ledger::open("a1", Some(&path)).unwrap();
        ledger.accept(&command("c1")).unwrap();
        ledger.accept(&command("c2")).unwrap();
        drop(ledger);
        let file = path.join(NAME);
        let whole = std::fs::read(&file).unwrap();
        for cut in 1..20 {
            std::fs::write(&file, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(Ledger::open("a1", Some(&path)).unwrap().unfinished().count(), 1, "{cut}");
        }
        std::fs::write(&file, [whole.as_slice(), &[0; 50]].concat()).unwrap();
        assert_eq!(Ledger::open("a1", Some(&path)).unwrap().unfinished().count(), 2);
        let mut damaged = whole.clone();
        damaged[HEAD_BYTES + 3] ^= 1;
        std::fs::write(&file, damaged).unwrap();
        Ledger::open("a1", Some(&path)).expect_err("a flipped bit");
    }

    #[test]
    fn a_ledger_is_one_agents_and_one_processs() {
        let path = directory("owner");
        let ledger = Ledger::open("a1", Some(&path)).unwrap();
        assert_eq!(Ledger::open("a1", Some(&path)).expect_err("in use").kind(), io::ErrorKind::WouldBlock);
        drop(ledger);
        let error = Ledger::open("a2", Some(&path)).expect_err("another agent's").to_string();
        assert!(error.contains("'a1'"), "{error}");
    }

    #[test]
    fn the_file_and_what_is_remembered_stay_bounded() {
        let path = directory("bounded");
        let mut ledger = Ledger::open("a1", Some(&path)).unwrap();
        for n in 0..REMEMBERED_IDS + 10 {
            ledger.settle(&format!("{n:0200}"), Some(Stage::Completed), false).unwrap();
        }
        for n in 0..REMEMBERED_RESULTS + 10 {
            ledger.keep_result(&n.to_string(), &[b' '; 20_000], 0).unwrap();
        }
        assert_eq!((ledger.settled.len(), ledger.results.len()), (REMEMBERED_IDS, REMEMBERED_RESULTS));
        let bytes = std::fs::metadata(path.join(NAME)).unwrap().len();
        assert!(bytes < 20 << 20, "{bytes}");
        assert_eq!(ledger.settled(&format!("{REMEMBERED_IDS:0200}")), Some(Stage::Completed));
        assert_eq!(ledger.settled(&format!("{:0200}", 3)), None);
    }
}
