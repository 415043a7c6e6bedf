//! Gaps and restarts of a node, which must not be counted as silence of its agents.

use super::*;

/// Stops the process for `duration`, then reports the gap and the time.
fn stop(mesh: &mut Mesh, node: usize, duration: Duration) {
    let since = mesh.nodes[node].poll_deadline().unwrap_or(mesh.now.mono);
    mesh.now.mono += duration;
    mesh.now.wall_ms += i64::try_from(duration.as_millis()).expect("short");
    mesh.nodes[node].handle_gap(mesh.now, since);
}

/// Restarts the node and reports the records it stored.
fn restart(mesh: &mut Mesh, node: usize) {
    let ours = EndpointId([u8::try_from(node).expect("few nodes"); 32]);
    mesh.nodes[node] = Fleet::new(ours, format!("n{node}"), Settings::default());
    for (key, json) in mesh.stores[node].clone() {
        mesh.nodes[node].handle_record(mesh.now, key.id(), Some(&json));
    }
}

#[test]
fn a_stopped_node_hears_what_waits_for_it_before_it_judges() {
    let mut mesh = Mesh::new(2);
    let (local, other) = (mesh.register(0, "here"), mesh.register(1, "there"));
    stop(&mut mesh, 0, 1_000 * SECOND);
    mesh.nodes[0].handle_timeout(mesh.now);
    assert_eq!(
        (mesh.agent(0, "here").liveness(), mesh.agent(0, "there").liveness()),
        (sidecar::Liveness::Live, sidecar::Liveness::Live)
    );
    assert!(mesh.agent(0, "here").age_ms >= 1_000_000, "its age is not made up");
    mesh.beat(0, local);
    mesh.nodes[0].handle_presence(mesh.now, EndpointId([1; 32]));
    mesh.nodes[0].handle_timeout(Now { mono: mesh.now.mono + 60 * SECOND, ..mesh.now });
    assert_eq!(mesh.agent(0, "here").liveness(), sidecar::Liveness::Live);
    mesh.beat(1, other);
}

#[test]
fn an_agent_that_says_nothing_after_a_stop_is_silent_from_then_on() {
    let mut mesh = Mesh::new(1);
    mesh.register(0, "live");
    let gone = mesh.register(0, "stale");
    mesh.drop_stream(0, gone);
    stop(&mut mesh, 0, 10_000 * SECOND);
    mesh.nodes[0].handle_timeout(mesh.now);
    assert_eq!((mesh.shown("live"), mesh.shown("stale")), ("L".into(), "S".into()));
    mesh.wait(31 * SECOND);
    assert_eq!((mesh.shown("live"), mesh.shown("stale")), ("S".into(), "D".into()));
    mesh.wait(301 * SECOND);
    stop(&mut mesh, 0, 10 * SECOND + Settings::default().times.heartbeat);
    assert_eq!(mesh.shown("live"), "D", "what was DEAD before stays so");
}

#[test]
fn the_age_of_a_dead_agent_goes_on_over_a_restart_of_a_node() {
    let mut mesh = Mesh::new(2);
    mesh.now.wall_ms = 1_790_000_000_000;
    mesh.register(0, "a");
    let advance = |mesh: &mut Mesh, duration: Duration| {
        mesh.wait(duration);
        mesh.now.wall_ms += i64::try_from(duration.as_millis()).expect("short");
    };
    // The wall clock and the monotonic clock of a test advance separately.
    advance(&mut mesh, 500 * SECOND);
    assert_eq!(mesh.shown("a"), "DD");
    let before = mesh.agent(0, "a").age_ms;
    assert!(before >= 500_000);
    for node in 0..2 {
        restart(&mut mesh, node);
        assert_eq!(mesh.agent(node, "a").liveness(), sidecar::Liveness::Dead);
        assert!(mesh.agent(node, "a").age_ms >= before - 1_000, "{} at {node}", mesh.agent(node, "a").age_ms);
    }
    mesh.now.wall_ms = 0;
    restart(&mut mesh, 0);
    assert_eq!(mesh.agent(0, "a").age_ms, 300_000, "without a clock it was silent for as long as that takes at least");
    let stream = mesh.register(0, "a");
    mesh.beat(0, stream);
    assert_eq!(mesh.agent(0, "a").age_ms, 0);
}
