//! Disks that fill up, fail, and lose power.

use super::*;
use crate::store::room_problem;

#[test]
fn a_full_disk_fails_writes_by_name_and_they_work_again_when_there_is_room() {
    let mut bench = Bench::new();
    bench.put("cells/a", r#"{"n":1}"#);
    bench.disk.set_full(true);
    for name in ["cells/a", "platforms/a"] {
        let refused = bench.write(name, whole(r#"{"n":2}"#)).unwrap_err();
        assert!(matches!(refused, Error::DiskFull), "{refused:?}");
    }
    assert_eq!(bench.json("cells/a").unwrap(), r#"{"n":1}"#, "reads go on");
    bench.disk.set_full(false);
    bench.put("cells/a", r#"{"n":3}"#);
    bench.put("platforms/a", r#"{"n":3}"#);
    assert!(bench.store.poll_reopened().is_none());
    assert_eq!(bench.json("cells/a").unwrap(), r#"{"n":3}"#);
}

#[test]
fn a_request_that_was_wrong_is_told_so_even_when_the_disk_is_full() {
    let mut bench = Bench::new();
    bench.disk.set_full(true);
    let answers = bench.batch([write("cells/a", whole("[]")), write("cells/b", whole("{}"))]);
    assert!(matches!(answers[0], Err(Error::Json { .. })));
    assert!(matches!(answers[1], Err(Error::DiskFull)));
}

#[test]
fn a_disk_that_is_full_at_the_flush_keeps_what_is_owed_until_there_is_room() {
    let mut bench = Bench::new();
    bench.put("platforms/a", "{}");
    bench.disk.set_full(true);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.store.tip().durable, 0);
    assert!(bench.store.poll_deadline().is_some());
    bench.disk.set_full(false);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.store.tip().durable, 1);
}

/// Fails the disk at each write and sync of a durable put in turn.
#[test]
fn after_a_storage_error_nothing_unflushed_is_claimed_and_the_store_carries_on_in_a_new_run() {
    let (journal, pages) = ("{}".to_owned(), format!(r#"{{"text":"{}"}}"#, "x".repeat(20_000)));
    assert_eq!(steps_until_it_succeeds(&journal), 2, "one write and one sync");
    assert!(steps_until_it_succeeds(&pages) > 4);
}

fn steps_until_it_succeeds(json: &str) -> u64 {
    for step in 0.. {
        let mut bench = Bench::new();
        bench.put("cells/kept", "{}");
        bench.put("platforms/relaxed", "{}");
        let (run, old) = (bench.store.run(), bench.store.reader());
        bench.disk.fail_after(Some(step));
        let result = bench.write("cells/a", whole(json));
        bench.disk.fail_after(None);
        if result.is_ok() {
            return step;
        }
        assert!(matches!(result, Err(Error::Io(_))), "step {step}: {result:?}");
        bench.pass(Duration::from_secs(2));
        let reader = bench.store.poll_reopened().unwrap();
        assert_eq!(reader.run(), bench.store.run());
        assert_ne!(reader.run(), run);
        assert!(old.snapshot().is_err(), "step {step}");
        assert!(bench.json("cells/kept").is_some());
        let tip = bench.store.tip();
        assert_eq!(tip.visible, tip.durable);
        assert!(bench.put("cells/a", r#"{"again":1}"#).durable);
        let bench = bench.crash();
        assert_eq!(bench.json("cells/a").unwrap(), r#"{"again":1}"#);
    }
    unreachable!("a disk that fails later than the put needs it");
}

/// Returns a store without a cache, on a disk that has failed one read.
fn after_a_failed_read() -> Bench {
    let mut bench = Bench::new();
    assert!(written(bench.request(durable("cells/a", whole("{}")))).unwrap().durable);
    let (disk, config) = (bench.disk.crash(), StoreConfig { cache_bytes: 0, ..StoreConfig::new(node(1)) });
    let store = Store::open(disk.clone(), config, &mut Counter(100), bench.now).unwrap();
    let bench = Bench { disk, store, ..bench };
    bench.disk.set_unreadable(true);
    let snapshot = bench.store.reader().snapshot();
    let failed = snapshot.and_then(|snapshot| snapshot.document(&key("cells/a")));
    bench.disk.set_unreadable(false);
    assert!(matches!(failed, Err(Error::Io(_))), "{failed:?}");
    bench
}

#[test]
fn a_read_that_failed_costs_no_later_read() {
    let mut bench = after_a_failed_read();
    let old = bench.store.reader();
    assert!(!bench.store.alarm().is_empty(), "the thread is woken");
    assert!(bench.store.poll_deadline().is_some_and(|at| bench.now.reached(at)), "without a write that finds out");
    bench.pass(Duration::ZERO);
    let reader = bench.store.poll_reopened().expect("the database was opened anew");
    assert_eq!(reader.snapshot().unwrap().document(&key("cells/a")).unwrap().unwrap().json, "{}");
    assert!(matches!(old.snapshot(), Err(Error::Io(_))));
    assert!(bench.store.alarm().is_empty() && bench.store.poll_deadline().is_none());
}

#[test]
fn a_read_that_failed_costs_no_write() {
    let mut bench = after_a_failed_read();
    assert!(written(bench.request(durable("cells/b", whole("{}")))).unwrap().durable);
    assert_eq!(bench.crash().json("cells/b").unwrap(), "{}");
}

#[test]
fn while_the_disk_stays_unreadable_the_store_tries_once_a_second() {
    let mut bench = after_a_failed_read();
    bench.disk.set_unreadable(true);
    bench.pass(Duration::ZERO);
    for _ in 0..3 {
        assert!(bench.store.alarm().is_empty(), "nothing wakes the thread before the time has come");
        assert!(bench.store.poll_deadline().is_some_and(|at| !bench.now.reached(at)));
        assert!(matches!(bench.write("cells/a", whole("{}")), Err(Error::Io(_))));
        bench.pass(Duration::from_secs(1));
    }
    bench.disk.set_unreadable(false);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.json("cells/a").unwrap(), "{}");
}

#[test]
fn while_the_disk_stays_broken_every_request_is_answered() {
    let mut bench = Bench::new();
    bench.disk.fail_after(Some(0));
    for _ in 0..3 {
        let answers = bench.batch((0..3).map(|n| write(&format!("cells/{n}"), whole("{}"))));
        assert!(answers.iter().all(|answer| matches!(answer, Err(Error::Io(_)))), "{answers:?}");
        assert_eq!(answers.len(), 3);
    }
    bench.disk.fail_after(None);
    bench.pass(Duration::from_secs(1));
    bench.put("cells/a", "{}");
}

/// Cuts the power after each write and sync of a short history in turn.
#[test]
fn whatever_write_the_power_fails_at_acknowledged_durable_writes_are_there() {
    for step in 0..400 {
        let disk = Ram::default();
        disk.fail_after(Some(step));
        let mut random = Counter(40);
        let mut kept = 0;
        if let Ok(store) = Store::open(disk.clone(), StoreConfig::new(node(1)), &mut random, epoch()) {
            let mut bench = Bench { number: 1, disk: disk.clone(), store, now: epoch(), starts: 1 };
            for n in 1..20 {
                match bench.write("cells/a", whole(&format!(r#"{{"n":{n}}}"#))) {
                    Ok(_) => kept = n,
                    Err(_) => break,
                }
            }
        }
        let bench = Bench::over(1, disk.crash(), 2);
        let found = bench.json("cells/a").map_or(0, |json| json[5..json.len() - 1].parse().unwrap());
        assert!(found == kept || found == kept + 1, "step {step}: {found} of {kept}");
        if kept == 19 {
            assert!(step > 40);
            return;
        }
    }
    panic!("the history never came to its end");
}

#[test]
fn opening_a_large_database_after_a_kill_does_not_walk_it() {
    let mut bench = Bench::new();
    let big = format!(r#"{{"fill":"{}"}}"#, "x".repeat(700_000));
    for n in 0..100 {
        bench.put(&format!("tracks/{n}"), &big);
    }
    bench.request(StoreRequest::Flush).unwrap();
    let bench = bench.crash();
    let (read, size) = (bench.disk.reads(), bench.disk.bytes().len() as u64);
    assert!(size > 64 << 20 && read < size / 50, "read {read} of {size}");
}

/// Returns the disk of a stopped store with a document, which has filled up since.
fn stopped_on_a_full_disk(fill: impl Fn(&Ram, bool)) -> Ram {
    let mut bench = Bench::new();
    bench.put("cells/a", r#"{"n":1}"#);
    bench.put("platforms/a", r#"{"n":1}"#);
    bench.pass(Duration::from_secs(2));
    let disk = bench.disk.crash();
    fill(&disk, true);
    disk
}

#[test]
fn a_database_on_a_full_disk_is_opened_and_takes_writes_once_there_is_room() {
    for fill in [Ram::fill, Ram::fill_to_the_last_block] {
        let disk = stopped_on_a_full_disk(fill);
        let before = disk.bytes();
        let mut bench = Bench::over(1, disk.clone(), 2);
        for name in ["cells/a", "platforms/a"] {
            assert_eq!(bench.json(name).unwrap(), r#"{"n":1}"#, "what was acknowledged is read");
            let refused = bench.write(name, whole(r#"{"n":2}"#)).unwrap_err();
            assert!(matches!(refused, Error::DiskFull), "{refused:?}");
        }
        let problem = room_problem(bench.store.reader().figures()).unwrap();
        assert!(problem.contains("a write needs 1.0 MiB"), "{problem}");
        let is_read_only = bench.store.reader().figures().read_only.get() == 1;
        assert_eq!(is_read_only, disk.bytes() == before, "reading only, nothing is written");

        fill(&disk, false);
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.store.poll_reopened().is_some(), is_read_only);
        assert_eq!(room_problem(bench.store.reader().figures()), None);
        assert!(bench.put("cells/a", r#"{"n":3}"#).durable);
        let bench = bench.crash();
        assert_eq!(bench.json("cells/a").unwrap(), r#"{"n":3}"#);
        assert_eq!(bench.json("platforms/a").unwrap(), r#"{"n":1}"#);
    }
}

#[test]
fn a_position_given_while_the_database_was_read_only_is_never_taken_for_another() {
    let disk = stopped_on_a_full_disk(Ram::fill_to_the_last_block);
    let mut bench = Bench::over(1, disk.clone(), 2);
    let (run, position) = (bench.store.run(), bench.store.tip().visible);
    disk.fill_to_the_last_block(false);
    bench.put("cells/b", "{}");
    assert_ne!(bench.store.run(), run);
    assert!(!bench.store.reader().snapshot().unwrap().token_is_known(run, position).unwrap());
}

#[test]
fn a_first_start_on_a_full_disk_fails_by_name_and_leaves_nothing_in_use() {
    let disk = Ram::default();
    disk.fill(true);
    let opened = Store::open(disk.clone(), StoreConfig::new(node(1)), &mut Counter(40), epoch());
    assert!(matches!(opened, Err(Error::DiskFull)), "{opened:?}");
    disk.fill(false);
    let mut bench = Bench::over(1, disk, 2);
    bench.put("cells/a", "{}");
}

#[test]
fn a_disk_that_fills_up_while_a_commit_is_written_is_read_on() {
    for step in 0..12 {
        let mut bench = Bench::new();
        bench.put("cells/a", r#"{"n":1}"#);
        bench.disk.fill_after(step);
        let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(20_000));
        let result = bench.write("cells/b", whole(&text));
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.json("cells/a").unwrap(), r#"{"n":1}"#, "step {step}: {result:?}");
        bench.disk.fill(false);
        bench.pass(Duration::from_secs(1));
        bench.put("cells/a", r#"{"n":2}"#);
    }
}
