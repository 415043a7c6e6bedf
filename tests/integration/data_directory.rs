//! Invalid data directories: the node names the problem, refuses to start, and changes nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rustix::process::Signal;

use crate::node::{Node, directory, eventually, run, skip};

/// Starts a node that must refuse to run; returns its exit code and its messages.
fn refused(home: &Path) -> (i32, String) {
    let mut child = Node::command(home, &["--bind", "127.0.0.1:0"]).spawn().expect("the program runs");
    let status = eventually("the node refuses", || child.try_wait().expect("our child"));
    (status.code().expect("not killed"), fs::read_to_string(home.join("log")).expect("a log"))
}

/// Creates a home in which a node has stored a document and stopped.
fn used() -> tempfile::TempDir {
    let home = directory();
    let mut node = Node::start(home.path(), &[]);
    node.run("put", &["c", "i", r#"{"a":1}"#]).ok();
    assert_eq!(node.stop(Signal::TERM).code(), Some(0));
    drop(node);
    home
}

#[test]
fn a_second_node_is_refused_and_told_who_has_it() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    let other = directory();
    std::os::unix::fs::symlink(node.data(), other.path().join("data")).expect("linked");
    let (code, words) = refused(other.path());
    let pid = fs::read_to_string(node.data().join("lock")).expect("locked");
    assert_eq!(code, 1);
    assert!(words.contains("in use") && words.contains(pid.trim()), "{words}");
    node.run("status", &[]).ok();
}

#[test]
fn a_directory_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return skip("a_directory_of_another_user_is_refused", "root");
    }
    let home = directory();
    fs::create_dir(home.path().join("data")).expect("made");
    chown(home.path().join("data"), Some(1234), Some(1234)).expect("root may");
    let (code, words) = refused(home.path());
    assert_eq!(code, 78);
    assert!(words.contains("1234") && words.contains("data"), "{words}");
    assert_eq!(fs::read_dir(home.path().join("data")).expect("there").count(), 0);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let home = used();
    let key = home.path().join("data/identity.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("ours");
    let (code, words) = refused(home.path());
    assert_eq!(code, 78);
    assert!(words.contains("identity.key") && words.contains("chmod 600"), "{words}");
}

#[test]
fn a_file_in_the_way_is_named() {
    let home = directory();
    fs::write(home.path().join("data"), "").expect("written");
    let (code, words) = refused(home.path());
    assert_eq!(code, 78);
    assert!(words.contains("data"), "{words}");
}

#[test]
fn a_database_that_is_cut_or_flipped_is_refused_or_read_but_never_crashes_the_node() {
    let home = used();
    let database = home.path().join("data/documents.redb");
    let whole = fs::read(&database).expect("there");
    let mut flipped = whole.clone();
    flipped[10] ^= 0xff;
    for (what, bytes) in [("cut", &whole[..whole.len() / 2]), ("cut short", &whole[..100]), ("flipped", &flipped)] {
        fs::write(&database, bytes).expect("written");
        let (code, words) = refused(home.path());
        assert!(code == 1 || code == 78, "{what}: {code} {words}");
        assert!(words.contains("damaged") && !words.contains("panicked"), "{what}: {words}");
        assert_eq!(fs::read(&database).expect("there").len(), bytes.len(), "{what}: it is left as it was");
    }
    fs::write(&database, &whole).expect("written");
    let node = Node::start(home.path(), &[]);
    assert_eq!(node.get("c", "i").as_deref(), Some(r#"{"a":1}"#));
}

#[test]
fn a_database_of_a_newer_format_is_refused_and_untouched() {
    let home = used();
    let database = home.path().join("data/documents.redb");
    let mut newer = fs::read(&database).expect("there");
    newer[8..12].copy_from_slice(&9u32.to_le_bytes());
    let sum = checksum(&newer[..12]);
    newer[12..16].copy_from_slice(&sum);
    fs::write(&database, &newer).expect("written");
    let (code, words) = refused(home.path());
    assert_eq!(code, 78);
    assert!(words.contains("format 9"), "{words}");
    assert!(fs::read(&database).expect("there") == newer, "it is left as it was");
}

#[test]
fn verify_reads_the_database_of_a_stopped_node_and_refuses_that_of_a_running_one() {
    let home = used();
    let data = home.path().join("data");
    let data = data.to_str().expect("text");
    let database = home.path().join("data/documents.redb");
    let whole = fs::read(&database).expect("there");
    assert!(run(&["verify", "--data-dir", data]).ok().contains("1 documents"));
    let mut flipped = whole.clone();
    // Pages that are no longer in use contain copies.
    for at in 0..whole.len() {
        flipped[at] ^= if whole[at..].starts_with(br#"{"a":1}"#) { 0xff } else { 0 };
    }
    fs::write(&database, &flipped).expect("written");
    assert!(run(&["verify", "--data-dir", data]).fails(1).contains("damaged"));
    assert!(fs::read(&database).expect("there") == flipped, "it is left as it was");
    fs::write(&database, &whole).expect("written");
    let _node = Node::start(home.path(), &[]);
    assert!(run(&["verify", "--data-dir", data]).fails(1).contains("in use"));
    assert!(run(&["verify", "--data-dir", "/nowhere"]).fails(1).contains("/nowhere"));
}

/// Computes CRC-32C bit by bit, independently of the code under test.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    let crc = bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)));
    (!crc).to_le_bytes()
}
