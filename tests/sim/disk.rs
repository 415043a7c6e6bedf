//! A disk in memory that models which writes a crash can undo.
//!
//! Writes and length changes stay *unsynced* until `sync_data`. In a crash each unsynced write is kept, lost, or torn at sector
//! granularity, as the seed decides. Errors, a capacity and slow syncs can be injected. A disk without power fails every
//! operation, so late writes of a dropped store have no effect.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use peat_node::store::Disk;

use crate::faults::{Fault, Tally};
use crate::prng::Prng;

/// Unit that a disk writes atomically, in bytes.
const SECTOR_BYTES: usize = 512;

/// Failure rates of a disk, in parts per million of operations.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFaults {
    pub read_ppm: u64,
    pub write_ppm: u64,
    pub sync_ppm: u64,
    pub slow_sync_ppm: u64,
}

enum Unsynced {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

struct Platter {
    /// Synced content, which survives a crash.
    durable: Vec<u8>,
    /// Content that reads return.
    current: Vec<u8>,
    unsynced: Vec<Unsynced>,
    faults: DiskFaults,
    capacity: usize,
    /// Length already covered by a reservation.
    reserved: usize,
    /// Number of operations until the power fails; `None`: it does not.
    fuse: Option<u64>,
    powered: bool,
    /// Virtual time spent in operations since last taken.
    busy: Duration,
    random: Prng,
    tally: Arc<Tally>,
}

/// A handle to a simulated disk; clones share the disk.
#[derive(Clone)]
pub struct SimDisk {
    platter: Arc<Mutex<Platter>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let platter = self.platter();
        write!(f, "SimDisk({} bytes, {} unsynced)", platter.current.len(), platter.unsynced.len())
    }
}

fn power_failure() -> io::Error {
    io::Error::other("the simulated power failed")
}

impl SimDisk {
    /// Creates a disk that contains `image`.
    pub fn new(image: Vec<u8>, random: Prng, tally: Arc<Tally>) -> SimDisk {
        let platter = Platter {
            current: image.clone(),
            durable: image,
            unsynced: Vec::new(),
            faults: DiskFaults::default(),
            capacity: usize::MAX,
            reserved: 0,
            fuse: None,
            powered: true,
            busy: Duration::ZERO,
            random,
            tally,
        };
        SimDisk { platter: Arc::new(Mutex::new(platter)) }
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().expect("no panic while the disk is locked")
    }

    /// Sets the failure rates.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.platter().faults = faults;
    }

    /// Sets the number of bytes the file may still grow by; `None`: no limit.
    pub fn set_spare(&self, spare: Option<usize>) {
        let mut platter = self.platter();
        platter.capacity = spare.map_or(usize::MAX, |spare| platter.current.len() + spare);
    }

    /// Cuts the power after this many more writes, length changes and syncs; `None`: not at all.
    pub fn set_fuse(&self, operations: Option<u64>) {
        self.platter().fuse = operations;
    }

    /// Runs a checker without injecting or drawing faults. Reads count as well: redb may write when it evicts cached pages.
    pub fn undisturbed<T>(&self, look: impl FnOnce() -> T) -> T {
        let (faults, fuse) = {
            let mut platter = self.platter();
            (std::mem::take(&mut platter.faults), platter.fuse.take())
        };
        let seen = look();
        let mut platter = self.platter();
        (platter.faults, platter.fuse) = (faults, fuse);
        seen
    }

    /// Returns true unless the power was cut or the fuse has blown.
    pub fn is_powered(&self) -> bool {
        self.platter().powered
    }

    /// Takes the virtual time spent in operations since the last call.
    pub fn take_busy(&self) -> Duration {
        std::mem::take(&mut self.platter().busy)
    }

    /// Cuts the power and returns the surviving content.
    pub fn crash(&self) -> Vec<u8> {
        let mut platter = self.platter();
        platter.powered = false;
        platter.survivors()
    }

    /// Returns the content a crash now would leave, like a backup taken from a running machine.
    pub fn backup(&self) -> Vec<u8> {
        self.platter().survivors()
    }
}

#[derive(Clone, Copy)]
enum Luck {
    AllKept,
    AllLost,
    EachItsOwn,
}

impl Platter {
    fn survivors(&mut self) -> Vec<u8> {
        let luck = *self.random.pick(&[Luck::AllKept, Luck::AllLost, Luck::EachItsOwn, Luck::EachItsOwn]);
        let mut image = self.durable.clone();
        for number in 0..self.unsynced.len() {
            let fate = match luck {
                Luck::AllKept => 0,
                Luck::AllLost => 1,
                Luck::EachItsOwn => self.random.below(3),
            };
            self.settle(number, fate, &mut image);
        }
        image
    }

    fn settle(&mut self, number: usize, fate: u64, image: &mut Vec<u8>) {
        let fault = match (&self.unsynced[number], fate) {
            (_, 0) => Fault::WriteKept,
            (_, 1) | (Unsynced::Length(_), _) => Fault::WriteLost,
            _ => Fault::WriteTorn,
        };
        self.tally.count(fault);
        match (&self.unsynced[number], fault) {
            (_, Fault::WriteLost) => {}
            (Unsynced::Length(length), _) => image.resize(*length, 0),
            (Unsynced::Write { offset, data }, Fault::WriteKept) => put(image, *offset, data),
            (Unsynced::Write { offset, data }, _) => {
                for (sector, bytes) in data.chunks(SECTOR_BYTES).enumerate() {
                    if self.random.chance(500) {
                        put(image, offset + sector * SECTOR_BYTES, bytes);
                    }
                }
            }
        }
    }

    /// Counts an operation that changes the disk; fails once the power is off.
    fn burn(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.fuse {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => self.powered = false,
            }
        }
        self.power()
    }

    fn power(&self) -> io::Result<()> {
        if self.powered { Ok(()) } else { Err(power_failure()) }
    }

    fn fails(&mut self, ppm: u64, fault: Fault) -> bool {
        let fails = self.random.chance_ppm(ppm);
        if fails {
            self.tally.count(fault);
        }
        fails
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        put(&mut self.current, offset, data);
        self.unsynced.push(Unsynced::Write { offset, data: data.to_vec() });
    }

    fn sync(&mut self) {
        for operation in self.unsynced.drain(..) {
            match operation {
                Unsynced::Write { offset, data } => put(&mut self.durable, offset, &data),
                Unsynced::Length(length) => self.durable.resize(length, 0),
            }
        }
    }
}

/// Writes `data` at `offset`, growing the image if a lost length change left it short.
fn put(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(data);
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl redb::StorageBackend for SimDisk {
    fn len(&self) -> io::Result<u64> {
        let platter = self.platter();
        platter.power()?;
        Ok(platter.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut platter = self.platter();
        platter.power()?;
        let ppm = platter.faults.read_ppm;
        if platter.fails(ppm, Fault::ReadError) {
            return Err(io::Error::other("simulated read error"));
        }
        let start = index(offset)?;
        let bytes = platter.current.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.platter();
        platter.burn()?;
        let length = index(len)?;
        if length > platter.current.len() && length > platter.capacity.max(platter.reserved) {
            platter.tally.count(Fault::DiskFull);
            return Err(io::ErrorKind::StorageFull.into());
        }
        platter.current.resize(length, 0);
        platter.unsynced.push(Unsynced::Length(length));
        Ok(())
    }

    /// A failed sync leaves the writes unsynced, and a later successful sync covers them. (Linux may drop them and report
    /// success the next time; no program that writes through the page cache survives that, so it is not simulated.)
    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter();
        platter.burn()?;
        let faults = platter.faults;
        if platter.fails(faults.sync_ppm, Fault::SyncError) {
            return Err(io::Error::other("simulated sync error"));
        }
        let slow = platter.fails(faults.slow_sync_ppm, Fault::SlowSync);
        let micros = if slow { platter.random.between(20_000, 2_000_000) } else { platter.random.between(50, 500) };
        platter.busy += Duration::from_micros(micros);
        platter.sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.platter();
        platter.burn()?;
        let start = index(offset)?;
        let ppm = platter.faults.write_ppm;
        if platter.fails(ppm, Fault::WriteError) {
            if platter.random.chance(500) {
                platter.tally.count(Fault::WritePartial);
                let part = platter.random.index(data.len().div_ceil(SECTOR_BYTES)) * SECTOR_BYTES;
                platter.write(start, &data[..part]);
            }
            return Err(io::Error::other("simulated write error"));
        }
        platter.write(start, data);
        Ok(())
    }
}

impl Disk for SimDisk {
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let mut platter = self.platter();
        platter.power()?;
        let wanted = platter.current.len().saturating_add(index(bytes)?);
        if wanted > platter.capacity {
            platter.tally.count(Fault::DiskFull);
            return Err(io::ErrorKind::StorageFull.into());
        }
        platter.reserved = wanted;
        Ok(())
    }

    fn used(&self) -> u64 {
        self.platter().current.len() as u64
    }
}
