//! Clocks, threads and unbounded queues appear only in the listed files, so that all other code can run under the simulator.
//! Clippy rejects the calls (clippy.toml); this test lists the files that may use `expect` or `allow` for them.

use std::fs;
use std::path::{Path, PathBuf};

/// Calls reserved for shells, and the files that are shells. Unbounded queues are forbidden everywhere.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("Instant::now", &["ipc/src/agents/clock.rs", "ipc/src/client.rs", "src/cli/remote.rs", "src/clock/shell.rs"]),
    ("SystemTime::now", &["ipc/src/agents/clock.rs", "src/clock/shell.rs"]),
    ("thread::spawn", &[]),
    (
        "thread::Builder",
        &[
            "ipc/src/agents/mod.rs",
            "src/cli/remote.rs",
            "src/node/logging.rs",
            "src/node/signals.rs",
            "src/node/threads.rs",
        ],
    ),
    ("unbounded", &[]),
    ("mpsc::channel", &[]),
];

fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("there") {
        let path = entry.expect("listed").path();
        match path.is_dir() {
            true => sources(&path, into),
            false if path.extension().is_some_and(|extension| extension == "rs") => into.push(path),
            false => {}
        }
    }
}

/// Returns the code of a file without comments and without its tests, which are at its end or in separate files.
fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod ").next().expect("at least one part");
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn clocks_and_threads_belong_to_shells() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("ipc/src"), &mut files);
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).expect("below").to_str().expect("text").to_owned();
        if name.contains("/tests/") || name.ends_with("/tests.rs") {
            continue;
        }
        let code = code(&fs::read_to_string(&file).expect("text"));
        for (call, shells) in ALLOWED {
            let allowed = shells.iter().any(|shell| name.starts_with(shell));
            if code.contains(call) && !allowed {
                found.push(format!("{name}: {call}"));
            }
        }
    }
    assert!(found.is_empty(), "only shells may use these: {found:#?}");
}
