//! A node process and its command line.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Time limit of each expected event. Generous, for a busy machine; only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Interval between checks of a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Returns the program under test, without the configuration in this process's environment.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peat-node"));
    for (name, _) in std::env::vars_os() {
        let ours = name.to_string_lossy();
        if ours.starts_with("PEAT_NODE_") || ours.ends_with("_DIRECTORY") || ours.starts_with("XDG_") {
            command.env_remove(name);
        }
    }
    command.env_remove("JOURNAL_STREAM").stdin(Stdio::null());
    command
}

/// Waits until `condition` yields a value.
#[expect(clippy::disallowed_methods, reason = "a test waits for another process, in real time")]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Reports a test that this machine cannot run; fails in CI, which must run all of them. Written past the test harness, which
/// hides the output of passing tests.
pub fn skip(test: &str, needs: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{test} needs {needs}");
    writeln!(std::io::stderr(), "SKIPPED {test}: needs {needs}").expect("stderr is there");
}

/// Exit code and output of a finished command.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub words: String,
}

impl Done {
    pub fn of(output: &Output) -> Done {
        Done {
            code: output.status.code().expect("the command was not killed"),
            out: String::from_utf8(output.stdout.clone()).expect("text"),
            words: String::from_utf8(output.stderr.clone()).expect("text"),
        }
    }

    /// Returns its stdout; fails the test if it did not succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.words);
        self.out
    }

    /// Returns its stderr; fails the test if it did not exit with `code`.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "{} {}", self.out, self.words);
        assert_eq!(self.out, "", "data without success");
        self.words
    }
}

/// Wraps a command so that another command runs it.
pub fn run_by(inside: &[String], command: Command, home: &Path) -> Command {
    let Some((program, arguments)) = inside.split_first() else { return command };
    let mut outer = Command::new(program);
    outer.args(arguments).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer.stdin(Stdio::null()).stderr(File::create(home.join("log")).expect("a log"));
    outer
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Done {
    Done::of(&program().args(arguments).output().expect("the program runs"))
}

/// Creates a temporary directory for one test.
pub fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    child: Option<Child>,
    home: PathBuf,
    flags: Vec<String>,
    /// Command prefix that runs the program.
    inside: Vec<String>,
    pub bind: String,
    pub id: String,
}

impl Node {
    /// Starts a node with the data directory `home/data` and waits until it is ready.
    pub fn start(home: &Path, flags: &[&str]) -> Node {
        Node::start_inside(Vec::new(), "127.0.0.1:0", home, flags)
    }

    /// Starts a node with the command prefix `inside`, bound to `bind`.
    pub fn start_inside(inside: Vec<String>, bind: &str, home: &Path, flags: &[&str]) -> Node {
        let flags = flags.iter().map(ToString::to_string).collect();
        let (home, bind) = (home.to_owned(), bind.to_owned());
        let mut node = Node { child: None, home, flags, inside, bind, id: String::new() };
        node.start_again();
        node
    }

    /// Returns the command that starts the node, with its log in `home/log`.
    pub fn command(home: &Path, flags: &[&str]) -> Command {
        let mut command = program();
        let (data, socket) = (home.join("data"), format!("unix://{}/socket", home.display()));
        command.arg("run").arg("--data-dir").arg(data).args(["--listen", &socket]).args(flags);
        command.stderr(File::create(home.join("log")).expect("a log"));
        command
    }

    /// Restarts the node with its previous data and port.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let mut command = Node::command(&self.home, &flags);
        command.args(["--bind", &self.bind]);
        let child = run_by(&self.inside, command, &self.home).spawn();
        let child = self.child.insert(child.expect("the program runs"));
        let ready = eventually("the node is ready", || {
            let log = fs::read_to_string(self.home.join("log")).expect("a log");
            let ended = child.try_wait().expect("our child");
            assert!(ended.is_none(), "the node ended: {log}");
            log.lines().find(|line| line.contains("ready: ")).map(String::from)
        });
        let after = |words: &str| ready.split_once(words).expect("the line has it").1;
        self.bind = after("nodes at ").split(',').next().expect("an address").to_owned();
        self.id = after("endpoint id ").to_owned();
    }

    /// Returns the node's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).expect("a log")
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Returns the address for clients.
    pub fn target(&self) -> String {
        format!("unix://{}/socket", self.home.display())
    }

    /// Returns the node's peer specification, as in `--peer`.
    pub fn spec(&self) -> String {
        format!("{}@{}", self.id, self.bind)
    }

    /// Returns a command to this node.
    pub fn call(&self, command: &str, arguments: &[&str]) -> Command {
        let mut program = program();
        // A busy machine needs a long timeout; tests of the default pass none.
        let timeout = if arguments.contains(&"--timeout") { None } else { Some(["--timeout", "60"]) };
        program.arg(command).args(["--node", &self.target()]).args(timeout.into_iter().flatten()).args(arguments);
        program
    }

    /// Runs a command to its end.
    pub fn run(&self, command: &str, arguments: &[&str]) -> Done {
        Done::of(&self.call(command, arguments).output().expect("the program runs"))
    }

    /// Runs a command with `--json` and returns its output.
    pub fn json(&self, command: &str, arguments: &[&str]) -> serde_json::Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.run(command, &arguments).ok()).expect("JSON")
    }

    /// Returns the document, if it exists.
    pub fn get(&self, collection: &str, id: &str) -> Option<String> {
        let done = self.run("get", &[collection, id]);
        (done.code != 3).then(|| done.ok().trim_end().to_owned())
    }

    /// Waits until the document equals `expected`.
    pub fn shows(&self, collection: &str, id: &str, expected: &str) {
        eventually(&format!("{collection}/{id} is {expected}"), || {
            (self.get(collection, id).as_deref() == Some(expected)).then_some(())
        });
    }

    /// Returns the process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    /// Kills the process with SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// Sends the process a signal, such as SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("it runs")), signal).expect("our child");
    }

    /// Sends the node a signal and waits for its exit.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        kill_process(Pid::from_child(&child), signal).expect("our child");
        let ended = eventually("the node ends", || child.try_wait().expect("our child"));
        println!("{}", self.log());
        ended
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // A child that cannot be killed is left behind.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.home.display(), fs::read_to_string(self.home.join("log")).unwrap_or_default());
        }
    }
}
