//! Nodes in separate network namespaces, with virtual cables between them that can be moved.
//!
//! Requires `ip`, `tc`, `nsenter` and `unshare`, and root or permission to be root of a user namespace. All namespaces end with
//! the process that holds them.

mod narrow;
mod roaming;
mod silence;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::node::skip;

/// Script that creates and holds the namespaces, reports that they exist, and ends with its standard input.
const HOLD: &str = r#"mount -t tmpfs tmpfs /run && mkdir /run/netns || exit 1
for name; do
    ip netns add "$name" && ip -n "$name" link set lo up || exit 1
    nsenter --net="/run/netns/$name" sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
        echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6' || exit 1
done
echo made
exec cat"#;

/// A set of networks, which are not connected until a cable is plugged in.
pub struct Networks {
    holder: Child,
    as_user: bool,
}

impl Networks {
    /// Creates networks with these names; `None`, after printing the reason, where that is not possible.
    pub fn make(test: &str, names: &[&str]) -> Option<Networks> {
        let tools = ["ip", "tc", "nsenter", "unshare"];
        if let Some(missing) = tools.iter().find(|tool| !is_there(tool)) {
            skip(test, &format!("`{missing}` (packages iproute2 and util-linux)"));
            return None;
        }
        let as_user = !rustix::process::geteuid().is_root();
        let mut holder = Command::new("unshare");
        if as_user {
            holder.args(["--user", "--map-root-user"]);
        }
        holder.args(["--mount", "--net", "sh", "-c", HOLD, "hold"]).args(names);
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare runs");
        let mut said = String::new();
        BufReader::new(holder.stdout.as_mut().expect("piped")).read_line(&mut said).expect("text");
        let networks = Networks { holder, as_user };
        if said.trim() == "made" {
            return Some(networks);
        }
        skip(test, "the right to make network namespaces");
        None
    }

    /// Returns the command prefix that runs a command in the namespace where the networks have names.
    fn outside(&self) -> Vec<String> {
        let user: &[&str] = if self.as_user { &["--user", "--preserve-credentials"] } else { &[] };
        let target = self.holder.id().to_string();
        let enter = ["nsenter", "--target", &target, "--mount"];
        enter.iter().chain(user).chain(&["--"]).map(ToString::to_string).collect()
    }

    /// Returns the command prefix that runs a command in a network.
    pub fn inside(&self, name: &str) -> Vec<String> {
        let mut command = self.outside();
        command.extend(["nsenter".to_owned(), format!("--net=/run/netns/{name}"), "--".to_owned()]);
        command
    }

    /// Returns a command that runs in a network.
    pub fn command(&self, name: &str, program: &str, arguments: &[&str]) -> Command {
        let inside = self.inside(name);
        let mut command = Command::new(&inside[0]);
        command.args(&inside[1..]).arg(program).args(arguments);
        command
    }

    /// Runs a space-separated command in a network and returns its output.
    #[track_caller]
    pub fn run(&self, name: &str, words: &str) -> String {
        let words: Vec<&str> = words.split(' ').collect();
        let output = self.command(name, words[0], &words[1..]).output().expect("nsenter runs");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs `ip` in the namespace where the networks have names.
    #[track_caller]
    pub fn ip(&self, words: &str) {
        let outside = self.outside();
        let output = Command::new(&outside[0]).args(&outside[1..]).arg("ip").args(words.split(' ')).output();
        let output = output.expect("nsenter runs");
        assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Connects two networks with a cable: an interface of this name at each end, up and with these addresses.
    pub fn cable(&self, ends: [(&str, &str, &str); 2]) {
        let [(one, one_name, one_address), (other, other_name, other_address)] = ends;
        self.ip(&format!("link add {one_name} netns {one} type veth peer name {other_name} netns {other}"));
        for (network, name, address) in [(one, one_name, one_address), (other, other_name, other_address)] {
            self.ip(&format!("-n {network} addr add {address} dev {name}"));
            self.ip(&format!("-n {network} link set {name} up"));
        }
    }

    /// Returns the number of packets an interface has sent and received, by any process.
    pub fn packets(&self, network: &str, interface: &str) -> (u64, u64) {
        let shown = self.run(network, &format!("ip -s -j link show {interface}"));
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let count = |way: &str| shown[0]["stats64"][way]["packets"].as_u64().expect("a number");
        (count("tx"), count("rx"))
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        // A child that cannot be killed is left behind.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn is_there(tool: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}
