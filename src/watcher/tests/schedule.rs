//! Schedule of the polls and of the writes to the platform.

use super::*;

#[test]
fn an_unchanged_agent_costs_one_platform_write_a_heartbeat_and_nothing_else() {
    let mut world = World::new();
    let packages: Vec<Value> = (0..500).map(|n| json!({"name": format!("p{n}"), "version": "1"})).collect();
    world.says(Question::Packages, json!({ "packages": packages }));
    assert_eq!(world.poll().len(), 501);
    let written: Vec<String> = (0..36).flat_map(|_| world.poll()).collect();
    assert_eq!(written, vec!["put platforms/a1"; 12], "six minutes");
}

#[test]
fn polls_come_at_the_interval_however_long_answers_take() {
    let mut world = World::new();
    let start = world.now.mono;
    world.poll();
    world.pass(Duration::from_secs(4));
    world.poll();
    assert_eq!(world.now.mono, start + POLL);
    world.pass(POLL * 5 + Duration::from_secs(1));
    world.poll();
    assert_eq!(world.watcher.poll_deadline(), start + POLL * 7, "what was missed is not made up for");
}

#[test]
fn slow_answers_do_not_stretch_the_heartbeat() {
    let mut world = World::new();
    world.poll();
    world.pass(Duration::from_secs(6));
    world.poll();
    world.poll();
    assert_eq!(world.poll(), ["put platforms/a1"]);
}

#[test]
fn an_agent_that_stops_answering_is_left_as_it_is() {
    let mut world = World::new();
    world.poll();
    let before = world.documents.clone();
    Question::ALL.into_iter().for_each(|question| world.is_silent(question));
    let written: Vec<String> = (0..60).flat_map(|_| world.poll()).collect();
    assert_eq!((written, world.documents == before), (vec![], true));
}

#[test]
fn packages_alone_are_no_sign_of_life() {
    let mut world = World::new();
    world.poll();
    world.is_silent(Question::Status);
    world.says(Question::Packages, json!({"packages": [{"name": "podinfo", "version": "6.5"}]}));
    let written: Vec<String> = (0..6).flat_map(|_| world.poll()).collect();
    assert_eq!(written, ["put deployments/a1:podinfo"]);
}

#[test]
fn what_went_wrong_is_logged_once_a_minute_and_its_end_too() {
    let mut world = World::new();
    world.poll();
    world.is_silent(Question::Pulled);
    (0..6).for_each(|_| _ = world.poll());
    assert_eq!(world.notes.len(), 1, "{:?}", world.notes);
    assert!(world.notes[0].contains("ListPulledPackages") && world.notes[0].contains("10s"), "{:?}", world.notes);
    world.says(Question::Pulled, json!({}));
    world.poll();
    assert!(world.notes[1].contains("answered again"), "{:?}", world.notes);
}

#[test]
fn nothing_is_written_for_an_agent_that_pushes_until_it_stops() {
    let mut world = World::new();
    world.poll();
    world.pushes = true;
    world.says(Question::Packages, json!({"packages": [{"name": "podinfo", "version": "6.5"}]}));
    (0..9).for_each(|_| assert_eq!(world.poll(), Vec::<String>::new()));
    // The agent wrote this itself while it pushed.
    world.somebody_puts("deployments", "a1:other", json!({"agent_id": "a1", "package": "other"}));
    world.pushes = false;
    let written: Vec<String> = (0..2).flat_map(|_| world.poll()).collect();
    assert_eq!(
        written,
        ["put platforms/a1", "put platforms/a1", "delete deployments/a1:other", "put deployments/a1:podinfo"]
    );
    assert_eq!(world.notes.len(), 2, "{:?}", world.notes);
}

#[test]
fn what_is_held_is_read_whole_once_and_compared_once_a_heartbeat() {
    let mut world = World::new();
    (0..9).for_each(|_| _ = world.poll());
    assert_eq!(world.reads.len(), 3, "{:?}", world.reads);
    assert_eq!(world.reads[0], Read::Everything);
    assert!(world.reads[1..].iter().all(|read| matches!(read, Read::These(_))));
}

#[test]
fn a_node_that_cannot_be_read_is_not_written_to() {
    let mut world = World::new();
    world.watcher.handle_timeout(world.now);
    assert_eq!(world.watcher.poll_task(), Some(Task::Read(Read::Everything)));
    world.watcher.handle_held(Err("the disk is gone".into()));
    world.carry_out();
    assert!(world.written.is_empty() && world.notes[0].contains("the disk is gone"));
    assert_eq!(world.poll().len(), 2, "the next poll tries again");
}
