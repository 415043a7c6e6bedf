//! A `peat-node relay` process, and the separate key with which it admits nodes.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;

use tempfile::TempDir;

use crate::node::{directory, eventually, program, run, run_by};

/// Creates a key and a file that contains it.
pub fn key_file(home: &Path) -> (PathBuf, String) {
    let (path, key) = (home.join("key"), run(&["keygen"]).ok());
    fs::write(&path, &key).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
    (path, key.trim().to_owned())
}

/// A running relay.
pub struct Relay {
    child: Option<Child>,
    home: TempDir,
    /// Command prefix that runs the program.
    inside: Vec<String>,
    pub listen: String,
    key: PathBuf,
}

impl Relay {
    /// Starts a relay on loopback.
    pub fn start(key: &Path) -> Relay {
        Relay::start_inside(Vec::new(), "127.0.0.1:0", key)
    }

    /// Starts a relay with the command prefix `inside`, bound to `listen`.
    pub fn start_inside(inside: Vec<String>, listen: &str, key: &Path) -> Relay {
        let mut relay =
            Relay { child: None, home: directory(), inside, listen: listen.to_owned(), key: key.to_owned() };
        relay.start_again();
        relay
    }

    /// Restarts the relay on its previous port.
    pub fn start_again(&mut self) {
        let log = self.home.path().join("log");
        let mut command = program();
        command.args(["relay", "--listen", &self.listen, "--relay-key-file"]).arg(&self.key);
        command.stderr(File::create(&log).expect("a log"));
        let child = run_by(&self.inside, command, self.home.path()).spawn().expect("the program runs");
        let child = self.child.insert(child);
        self.listen = eventually("the relay is ready", || {
            let log = fs::read_to_string(&log).expect("a log");
            assert!(child.try_wait().expect("our child").is_none(), "the relay ended: {log}");
            Some(log.lines().find_map(|line| line.split_once("relay at "))?.1.to_owned())
        });
    }

    /// Kills the process with SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // A child that cannot be killed is left behind.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
