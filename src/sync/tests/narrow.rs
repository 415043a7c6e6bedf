//! Narrow, lossy and distant links, under the engines as shipped.

use std::time::Duration;

use super::commands::{has, issue};
use super::mesh::{HEADERS_BYTES, Mesh, Seeded, Setup, Wire};

/// Radio by satellite: 64 kbit/s, 800 ms each way, 5 % loss.
const RADIO: Wire = Wire { delay: Duration::from_millis(800), loss_per_mille: 50, bytes_per_second: Some(RATE) };
const RATE: u64 = 8_000;

/// Creates two nodes that keep to a rate; the second dials the first.
fn pair(rate: Option<u64>, wire: Wire) -> Mesh {
    let setup = Setup { link_rate: rate, ..Setup::default() };
    let mut mesh = Mesh::new(vec![setup.clone(), Setup { dials: vec![0], ..setup }]);
    mesh.wire = wire;
    mesh.connect_all();
    mesh
}

/// Returns an incompressible document of about a kilobyte.
fn document(number: u64) -> String {
    let text: String =
        (0..120).map(|at| format!("{:08x}", (number + 1).wrapping_mul(0x9e37_79b9 * (at + 1)) & 0xffff_ffff)).collect();
    format!(r#"{{"n":{number},"text":"{text}"}}"#)
}

/// Returns text of this number of characters, compressible to no less than six bits each.
fn noise(seed: u64, characters: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(ALPHABET[(state >> 58) as usize])
    };
    (0..characters).map(|_| next()).collect()
}

fn fill(mesh: &mut Mesh, collection: &str, count: u64) -> u64 {
    (0..count)
        .map(|number| {
            let json = document(number);
            mesh.put(0, collection, &format!("d{number}"), &json);
            json.len() as u64
        })
        .sum()
}

/// Runs until both nodes agree, within ten minutes: narrow links are slow.
fn converge(mesh: &mut Mesh) {
    let deadline = now(mesh) + Duration::from_secs(600);
    while mesh.state(0) != mesh.state(1) {
        assert!(now(mesh) < deadline, "no convergence in ten minutes");
        mesh.run_for(Duration::from_millis(200));
    }
}

fn now(mesh: &Mesh) -> Duration {
    Duration::from_millis(mesh.now().boot_ms)
}

/// One loss at the end costs a seventh of the rate, so the result is taken over several runs with independent losses.
#[test]
fn a_lossy_radio_carries_seven_tenths_of_its_rate_in_documents_and_is_never_idle() {
    let goodputs: Vec<f64> = (1..=6).map(goodput_with_losses).collect();
    let mean = goodputs.iter().sum::<f64>() / goodputs.len() as f64;
    assert!(mean >= 0.7, "{mean:.3} of the rate: {goodputs:.3?}");
}

fn goodput_with_losses(seed: u64) -> f64 {
    let mut mesh = pair(Some(RATE), RADIO);
    mesh.losses = Seeded::new(seed);
    let (before, bytes) = (now(&mesh), fill(&mut mesh, "tracks", 300));
    mesh.take_carried();
    assert!(mesh.run_until(Duration::from_secs(120), |mesh| mesh.get(1, "tracks", "d299").is_some()));
    let sent = mesh.carried[&(0, 1)];
    converge(&mut mesh);
    let taken = (now(&mesh) - before).as_secs_f64();
    let goodput = bytes as f64 / taken / RATE as f64;
    println!("goodput {goodput:.3} of the rate");
    let busy = (sent.0 + sent.1 * HEADERS_BYTES) as f64 / RATE as f64;
    assert!(busy / taken > 0.85, "busy for {busy:.1} s of {taken:.1} s");
    goodput
}

#[test]
fn a_radio_by_satellite_with_losses_carries_as_much() {
    let wire = Wire { delay: Duration::from_millis(750), loss_per_mille: 50, bytes_per_second: Some(100_000) };
    let mut mesh = pair(Some(100_000), wire);
    let before = now(&mesh);
    let bytes = fill(&mut mesh, "tracks", 3_000);
    converge(&mut mesh);
    let goodput = bytes as f64 / (now(&mesh) - before).as_secs_f64() / 100_000.0;
    println!("goodput {goodput:.3} of the rate");
    assert!(goodput >= 0.5, "{goodput:.3} of the rate");
}

#[test]
fn a_satellite_hop_of_a_second_and_a_half_is_not_a_dead_peer() {
    for loss_per_mille in [0, 50] {
        let wire = Wire { delay: Duration::from_millis(750), loss_per_mille, bytes_per_second: None };
        let mut mesh = pair(None, wire);
        for number in 0..120 {
            mesh.put(number % 2, "notes", "n", &document(number as u64));
            let up = !mesh.run_until(Duration::from_secs(5), |mesh| !mesh.is_connected(0) || !mesh.is_connected(1));
            assert!(up, "the link went down with {loss_per_mille} per mille lost, after {number} turns");
        }
        converge(&mut mesh);
    }
}

#[test]
fn a_command_overtakes_a_catch_up_within_three_round_trips() {
    let wire = Wire { delay: Duration::from_millis(200), loss_per_mille: 0, bytes_per_second: Some(RATE * 4) };
    for rate in [Some(RATE * 4), None] {
        let overtaken = overtaken(rate, wire, |mesh| {
            fill(mesh, "notes", 2_000);
        });
        assert!(overtaken.get(1, "notes", "d1999").is_none(), "the catch-up still runs");
    }
}

#[test]
fn a_command_overtakes_a_catch_up_of_a_hundred_mebibytes_within_three_round_trips() {
    // Six bits of each character are noise, which remains on the wire.
    const DOCUMENTS: u64 = (100 << 20) / ((900 << 10) * 6 / 8) + 1;
    let wire = Wire { delay: Duration::from_millis(50), loss_per_mille: 0, bytes_per_second: Some(1_000_000) };
    for rate in [Some(1_000_000), None] {
        let overtaken = overtaken(rate, wire, |mesh| {
            for number in 0..DOCUMENTS {
                let text = noise(number, 900 << 10);
                mesh.put(0, "notes", &format!("d{number}"), &format!(r#"{{"text":"{text}"}}"#));
            }
        });
        let held = (0..DOCUMENTS).filter(|number| overtaken.get(1, "notes", &format!("d{number}")).is_some()).count();
        assert!((1..60).contains(&held), "the catch-up has begun, and most is still to come: {held} of {DOCUMENTS}");
    }
}

/// Creates two nodes of which one has a large backlog to receive, and asserts that a command to the first arrives within three
/// round trips.
fn overtaken(rate: Option<u64>, wire: Wire, fill: impl FnOnce(&mut Mesh)) -> Mesh {
    let setup = Setup { link_rate: rate, ..Setup::default() };
    let mut mesh = Mesh::new(vec![setup.clone(), Setup { dials: vec![0], ..setup }]);
    mesh.wire = wire;
    mesh.cut(0, 1);
    fill(&mut mesh);
    mesh.heal();
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(20));
    assert_eq!(mesh.peers(1).len(), 1, "the catch-up runs");
    let rtt = Duration::from_micros(mesh.peers(0)[0].rtt_micros);
    let id = issue(&mut mesh, 0);
    let arrived = mesh.run_until(3 * rtt, |mesh| has(mesh, 1, &id));
    assert!(arrived, "not within three round trips of {rtt:?}, rate {rate:?}");
    mesh
}

#[test]
fn telemetry_on_a_narrow_link_is_the_newest_there_is() {
    let mut mesh = pair(Some(RATE), RADIO);
    fill(&mut mesh, "notes", 500);
    let mut worst = 0;
    for number in 0..600 {
        mesh.put(0, "tracks", "t", &format!(r#"{{"n":{number}}}"#));
        mesh.run_for(Duration::from_millis(100));
        let seen = mesh.get(1, "tracks", "t").and_then(|json| json[5..json.len() - 1].parse::<u64>().ok());
        if number > 100 {
            worst = worst.max(number - seen.unwrap_or(0));
        }
    }
    println!("at worst {worst} versions of 100 ms behind");
    assert!(worst < 80, "{worst} versions, of 100 ms each, behind");
    assert!(mesh.get(1, "notes", "d499").is_none(), "the link was busy all along");
}

#[test]
fn on_a_radio_everything_newest_arrives_and_the_urgent_first() {
    let mut mesh = pair(Some(RATE), RADIO);
    fill(&mut mesh, "notes", 150);
    fill(&mut mesh, "tracks", 150);
    mesh.run_for(Duration::from_secs(3));
    let id = issue(&mut mesh, 0);
    assert!(mesh.run_until(Duration::from_secs(10), |mesh| has(mesh, 1, &id)));
    let count =
        |mesh: &Mesh, collection| (0..150).filter(|n| mesh.get(1, collection, &format!("d{n}")).is_some()).count();
    let (notes, tracks) = (count(&mesh, "notes"), count(&mesh, "tracks"));
    assert!(notes < 150 && tracks < 150, "the command came before what was written earlier: {notes}, {tracks}");
    mesh.run_for(Duration::from_secs(15));
    let (notes, tracks) = (count(&mesh, "notes"), count(&mesh, "tracks"));
    assert!(notes > tracks && tracks > 0, "{notes} merged and {tracks} latest documents: twice as many, but not all");
    converge(&mut mesh);
    assert_eq!((count(&mesh, "notes"), count(&mesh, "tracks")), (150, 150));
}

#[test]
fn a_link_with_a_rate_keeps_to_it() {
    let mut mesh = pair(Some(RATE), Wire::default());
    fill(&mut mesh, "tracks", 100);
    mesh.take_carried();
    mesh.run_for(Duration::from_secs(10));
    let (bytes, datagrams) = mesh.carried[&(0, 1)];
    let rate = (bytes + datagrams * HEADERS_BYTES) as f64 / 10.0;
    assert!(rate <= RATE as f64 * 1.03, "{rate} bytes a second");
}

/// Returns the bytes on the wire from node 0 to node 1 in ten seconds, while node 0 has more to send than that.
fn carried_in_ten_seconds(mesh: &mut Mesh) -> u64 {
    mesh.take_carried();
    mesh.run_for(Duration::from_secs(10));
    mesh.carried.get(&(0, 1)).map_or(0, |(bytes, _)| *bytes)
}

#[test]
fn a_rate_that_was_reloaded_counts_for_a_link_that_is_up() {
    let near = Wire { delay: Duration::from_millis(20), loss_per_mille: 0, bytes_per_second: None };
    for before in [None, Some(64 * RATE)] {
        let mut mesh = pair(before, near);
        mesh.nodes[0].rate = Some(RATE);
        mesh.reload(0, Vec::new());
        fill(&mut mesh, "notes", 500);
        let held = carried_in_ten_seconds(&mut mesh);
        assert!(held < 12 * RATE, "{held} bytes at {RATE} a second, after {before:?}");
        mesh.nodes[0].rate = None;
        mesh.reload(0, Vec::new());
        let free = carried_in_ten_seconds(&mut mesh);
        assert!(free > 3 * held, "{free} bytes once nothing holds them");
    }
}
