//! Injected faults, and the actions of operators during them.

use std::time::Duration;

use peat_node::sync::Control;

use crate::disk::DiskFaults;
use crate::faults::Fault;
use crate::mesh::node::Output;
use crate::mesh::world::World;
use crate::mesh::{Event, Role};
use crate::net::{NETWORKS, Weather};
use crate::seeds::{self, Violation};

/// Wall clocks after a reset and with a wrong battery, in Unix milliseconds: 1970 and 2099.
const WALLS_MS: [i64; 3] = [0, 4_070_908_800_000, 1_750_000_000_000];

/// Faults that need an operator's intervention.
#[derive(Debug, Default)]
pub struct Trouble {
    /// Number of disks replaced or restored so far.
    disasters: u32,
}

impl Trouble {
    /// Returns true if a disk was replaced or restored.
    pub fn had_disaster(&self) -> bool {
        self.disasters > 0
    }
}

impl World {
    /// Injects one fault, and schedules the next.
    pub fn make_trouble(&mut self) -> Result<(), Violation> {
        if self.healing {
            return Ok(());
        }
        let number = self.random.index(self.nodes.len());
        if self.random.chance(150) {
            self.nodes[number].back_up();
        }
        match self.random.below(100) {
            0..20 => self.break_machine(number)?,
            20..35 => self.break_disk(number),
            35..58 => self.break_network(number),
            58..70 if self.plan.has_relay() => self.break_relay(),
            58..70 => self.break_network(number),
            70..75 => {
                let network = u8::try_from(self.random.below(u64::from(NETWORKS))).expect("few");
                self.carry(number, network, 700)?;
            }
            75..85 => self.jump(number),
            85..97 => self.operate(number)?,
            _ if self.trouble.disasters < 2 => self.disaster(number),
            _ => {}
        }
        let pause = Duration::from_millis(self.random.between(50, 2_500));
        self.queue.after(pause, Event::Trouble);
        Ok(())
    }

    fn break_machine(&mut self, number: usize) -> Result<(), Violation> {
        if self.nodes[number].running.is_none() || self.is_stopped(number) {
            return Ok(());
        }
        match self.random.below(3) {
            0 => {
                let most = *self.random.pick(&[8, 80]);
                self.nodes[number].disk.set_fuse(Some(self.random.below(most)));
            }
            1 => {
                self.nodes[number].crash();
                self.went_off(number);
            }
            _ => self.restart(number)?,
        }
        Ok(())
    }

    fn restart(&mut self, number: usize) -> Result<(), Violation> {
        let time = self.time();
        let silent = std::mem::take(&mut self.nodes[number].silent);
        let output = self.nodes[number].stop(time);
        if silent && !output.datagrams.is_empty() {
            return Err(Violation::new("radio silence", format!("node {number} said goodbye")));
        }
        self.put_out(number, output)?;
        self.went_off(number);
        Ok(())
    }

    fn break_disk(&mut self, number: usize) {
        let often = *self.random.pick(&[2_000, 30_000]);
        let rate = |hit: bool| if hit { often } else { 0 };
        let faults = DiskFaults {
            read_ppm: rate(self.random.chance(300)) / 4,
            write_ppm: rate(self.random.chance(300)),
            sync_ppm: rate(self.random.chance(300)),
            slow_sync_ppm: if self.random.chance(500) { 300_000 } else { 0 },
        };
        let spare = self.random.chance(300).then(|| self.random.index(100_000));
        let node = &mut self.nodes[number];
        if node.troubled && self.random.chance(700) {
            node.mend_disk();
        } else {
            node.break_disk(faults, spare);
        }
    }

    /// Moves a node to another network; it is notified with a probability of `told_per_mille` in a thousand.
    fn carry(&mut self, number: usize, network: u8, told_per_mille: u64) -> Result<(), Violation> {
        if !self.net.carry(number, network) {
            return Ok(());
        }
        let told = self.random.chance(told_per_mille) && !self.is_stopped(number);
        self.tally.count(if told { Fault::Roamed } else { Fault::RoamedUnseen });
        let time = self.time();
        let output = if told { self.nodes[number].network_changed(time) } else { Output::default() };
        self.put_out(number, output)
    }

    fn break_network(&mut self, number: usize) {
        let other = (number + 1 + self.random.index(self.nodes.len() - 1)) % self.nodes.len();
        let relay = self.plan.has_relay() && self.random.chance(200);
        let other = if relay { self.plan.relay() } else { other };
        match self.random.below(6) {
            0 | 1 => {
                let weather = self.weather();
                self.net.set(number, other, weather.clone());
                self.net.set(other, number, weather);
            }
            2 => {
                self.tally.count(Fault::OneWayCut);
                self.net.cut(number, other, true);
            }
            3 => self.partition(),
            _ => self.net.calm(),
        }
    }

    fn weather(&mut self) -> Weather {
        let weather = Weather::foul(&mut self.random);
        if !self.random.chance(150) {
            return weather;
        }
        self.tally.count(Fault::Satellite);
        Weather { delay: Duration::from_millis(750), ..weather }
    }

    fn partition(&mut self) {
        self.tally.count(Fault::Partition);
        let side: Vec<bool> = self.nodes.iter().map(|_| self.random.chance(500)).collect();
        for (from, one) in side.iter().enumerate() {
            for (to, other) in side.iter().enumerate() {
                self.net.cut(from, to, one != other);
            }
        }
    }

    fn jump(&mut self, number: usize) {
        self.tally.count(Fault::ClockJump);
        let wall = *self.random.pick(&WALLS_MS);
        self.nodes[number].clock.jump(wall);
    }

    fn operate(&mut self, number: usize) -> Result<(), Violation> {
        let peer = self.random.index(self.nodes.len());
        let id = self.nodes[peer].id();
        let control = match self.random.below(6) {
            0 => Control::StopSync,
            1 | 2 => Control::StartSync,
            3 if peer != number => Control::Disconnect(id),
            4 if peer != number => {
                let linked = self.plan.are_linked(number, peer);
                let addresses = if linked { self.texts(number, peer) } else { Vec::new() };
                Control::Connect { peer: id, addresses, wait: None }
            }
            _ => Control::ListPeers,
        };
        self.ask(number, control)
    }

    /// Sends an operator's request to a node's sync engine, if the node is on.
    pub fn ask(&mut self, number: usize, control: Control) -> Result<(), Violation> {
        if self.nodes[number].running.is_none() {
            return Ok(());
        }
        match control {
            Control::StopSync => {
                self.tally.count(Fault::Silence);
                self.nodes[number].stops += 1;
            }
            Control::Disconnect(_) => self.tally.count(Fault::Disconnected),
            Control::StartSync => self.nodes[number].end_silence(),
            _ => {}
        }
        let time = self.time();
        seeds::trace(|| format!("{time:?} node {number} is asked {control:?}"));
        let mail = self.clients[number].ask(control);
        self.post(number, Role::Api, Role::Sync, mail)
    }

    fn disaster(&mut self, number: usize) {
        let restore = self.random.chance(500) && self.nodes[number].has_backup();
        self.trouble.disasters += 1;
        self.promises.release(number);
        let was_on = self.nodes[number].running.is_some();
        self.nodes[number].replace_disk(restore);
        if was_on {
            self.went_off(number);
        }
    }

    /// Ends all faults: in the core every link is fair, every disk works, every node is on and synchronises. Nodes outside the
    /// core are off for good, and their promises are dropped.
    pub fn heal(&mut self) -> Result<(), Violation> {
        self.healing = true;
        self.net.calm();
        self.start_relay();
        let lost = self.random.index(self.nodes.len());
        if self.random.chance(300) && self.plan.connects_without(lost) {
            self.tally.count(Fault::NodeLost);
            self.core.remove(&lost);
            self.promises.release(lost);
            if self.nodes[lost].running.is_some() {
                self.nodes[lost].crash();
                self.went_off(lost);
            }
        }
        for number in 0..self.nodes.len() {
            self.carry(number, 0, 500)?;
            self.nodes[number].mend_disk();
            if self.nodes[number].running.is_none() {
                continue;
            }
            match self.random.below(10) {
                0..2 => {
                    self.nodes[number].crash();
                    self.went_off(number);
                }
                2..4 => self.disaster(number),
                _ => self.ask(number, Control::StartSync)?,
            }
        }
        Ok(())
    }

    fn texts(&self, from: usize, to: usize) -> Vec<String> {
        self.plan.addresses_of(from, to).iter().map(ToString::to_string).collect()
    }

    /// Reverts the operators' peer settings, once everything is on.
    pub fn reconnect(&mut self) -> Result<(), Violation> {
        for number in 0..self.nodes.len() {
            for peer in 0..self.nodes.len() {
                let dials = self.plan.edges.contains(&(number, peer));
                if number != peer && (dials || self.plan.are_linked(number, peer)) {
                    let addresses = self.texts(number, peer);
                    let control = Control::Connect { peer: self.nodes[peer].id(), addresses, wait: None };
                    self.ask(number, control)?;
                }
            }
        }
        Ok(())
    }
}
