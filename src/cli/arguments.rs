//! Subcommands and their arguments: one definition for parsing, help and completions.

use argh::{ArgsInfo, CommandInfo, CommandInfoWithArgs, EarlyExit, FromArgs, SubCommand};

use crate::config::Flags;

/// keep an edge fleet's documents on local disk and carry them between nodes
#[derive(ArgsInfo, Debug, FromArgs)]
#[argh(
    help_triggers("-h", "--help", "help"),
    note = "Every flag of `run` is also an environment variable: --data-dir is PEAT_NODE_DATA_DIR. A flag wins.",
    note = "Options may stand anywhere. Behind `--` every argument is taken literally: `get COLLECTION -- --id`.",
    note = "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 cannot reach the node, 5 not allowed, 78 bad configuration."
)]
pub struct Arguments {
    /// print the version
    #[argh(switch, short = 'V')]
    pub version: bool,
    #[argh(subcommand)]
    pub command: Option<Command>,
}

/// Subcommand to run.
#[derive(ArgsInfo, Debug, FromArgs)]
#[argh(subcommand)]
pub enum Command {
    Run(Flags),
    Check(Check),
    Relay(Relay),
    Status(Status),
    Health(Health),
    Put(Put),
    Patch(Patch),
    Get(Get),
    List(List),
    Delete(Delete),
    Compact(Compact),
    Watch(Watch),
    Peers(Peers),
    Connect(Connect),
    Disconnect(Disconnect),
    Sync(Sync),
    Agents(Agents),
    Commands(Commands),
    Send(Send),
    Cancel(Cancel),
    Id(Id),
    Keygen(Keygen),
    Verify(Verify),
    Completions(Completions),
}

/// A subcommand that calls a node.
pub trait Remote {
    /// Value of `--node`.
    fn node(&self) -> Option<&str>;
    /// Value of `--timeout`.
    fn timeout(&self) -> Option<&str>;
}

/// Defines subcommands that call a node: their own arguments, and `--node`, `--timeout` and `--json`.
macro_rules! remote {
    ($($(#[$meta:meta])* $name:ident { $($body:tt)* })*) => {
        $(
            #[derive(ArgsInfo, Debug, FromArgs)]
            $(#[$meta])*
            pub struct $name {
                /// the node's address, unix:///PATH or tcp://HOST:PORT (where a node with the same defaults listens)
                #[argh(option, arg_name = "ADDR")]
                pub node: Option<String>,
                /// give up when the node has not answered within this time, seconds or a number with s, m, h, d (10)
                #[argh(option, arg_name = "TIME")]
                pub timeout: Option<String>,
                /// print the response in proto3 JSON, one object a line
                #[argh(switch)]
                pub json: bool,
                $($body)*
            }

            impl Remote for $name {
                fn node(&self) -> Option<&str> {
                    self.node.as_deref()
                }

                fn timeout(&self) -> Option<&str> {
                    self.timeout.as_deref()
                }
            }
        )*
    };
}

remote! {
    /// show who the node is and how it is connected
    #[argh(subcommand, name = "status", help_triggers("-h", "--help"))]
    Status {}

    /// show whether the node is well; exits with 1 when it is not
    #[argh(subcommand, name = "health", help_triggers("-h", "--help"))]
    Health {}

    /// write a document and print its version
    #[argh(subcommand, name = "put", help_triggers("-h", "--help"))]
    Put {
        /// version the change is based on, as get --json or put printed it (what the node holds)
        #[argh(option, arg_name = "VERSION")]
        pub base: Option<String>,
        /// wait until this many peers hold it on disk, within --timeout
        #[argh(option, arg_name = "N", default = "0")]
        pub wait_peers: u32,
        /// answer only once the document is on disk, in any collection
        #[argh(switch)]
        pub durable: bool,
        /// collection
        #[argh(positional)]
        pub collection: String,
        /// document id
        #[argh(positional)]
        pub id: String,
        /// the document: JSON, @FILE, or - for standard input
        #[argh(positional)]
        pub json_data: String,
    }

    /// change some fields of a document (RFC 7396) and print its version
    #[argh(subcommand, name = "patch", help_triggers("-h", "--help"))]
    Patch {
        /// version the change is based on, as get --json or put printed it (what the node holds)
        #[argh(option, arg_name = "VERSION")]
        pub base: Option<String>,
        /// wait until this many peers hold it on disk, within --timeout
        #[argh(option, arg_name = "N", default = "0")]
        pub wait_peers: u32,
        /// answer only once the document is on disk, in any collection
        #[argh(switch)]
        pub durable: bool,
        /// collection
        #[argh(positional)]
        pub collection: String,
        /// document id
        #[argh(positional)]
        pub id: String,
        /// the fields to set, null to remove: JSON, @FILE, or - for standard input
        #[argh(positional)]
        pub patch: String,
    }

    /// print a document
    #[argh(subcommand, name = "get", help_triggers("-h", "--help"))]
    Get {
        /// collection
        #[argh(positional)]
        pub collection: String,
        /// document id
        #[argh(positional)]
        pub id: String,
    }

    /// print the ids of a collection's documents
    #[argh(subcommand, name = "list", help_triggers("-h", "--help"))]
    List {
        /// collection
        #[argh(positional)]
        pub collection: String,
    }

    /// delete a document
    #[argh(subcommand, name = "delete", help_triggers("-h", "--help"))]
    Delete {
        /// collection
        #[argh(positional)]
        pub collection: String,
        /// document id
        #[argh(positional)]
        pub id: String,
    }

    /// drop a document's history; concurrent edits of other nodes are applied again over it
    #[argh(subcommand, name = "compact", help_triggers("-h", "--help"))]
    Compact {
        /// collection
        #[argh(positional)]
        pub collection: String,
        /// document id
        #[argh(positional)]
        pub id: String,
    }

    /// print changes as they happen, until interrupted
    #[argh(subcommand, name = "watch", help_triggers("-h", "--help"))]
    Watch {
        /// begin with what exists now
        #[argh(switch)]
        pub snapshot: bool,
        /// continue after this position, SEQUENCE@RUN as watch printed it; with --snapshot, begin with what exists now when
        /// the node cannot continue there
        #[argh(option, arg_name = "POSITION")]
        pub after: Option<String>,
        /// not this collection, such as agents, which nodes write themselves; may be given more than once
        #[argh(option, arg_name = "COLLECTION")]
        pub exclude: Vec<String>,
        /// only these collections (all)
        #[argh(positional)]
        pub collections: Vec<String>,
    }

    /// show the nodes this one knows
    #[argh(subcommand, name = "peers", help_triggers("-h", "--help"))]
    Peers {
        /// those that were disconnected too
        #[argh(switch)]
        pub all: bool,
    }

    /// link with a node from now on, across restarts
    #[argh(subcommand, name = "connect", help_triggers("-h", "--help"))]
    Connect {
        /// return once the node is admitted, or fail with the reason within --timeout
        #[argh(switch)]
        pub wait: bool,
        /// ID@HOST:PORT, more addresses after +; the id alone when its addresses are known
        #[argh(positional)]
        pub peer: String,
    }

    /// drop a node and refuse it until it is connected again, across restarts
    #[argh(subcommand, name = "disconnect", help_triggers("-h", "--help"))]
    Disconnect {
        /// the other node's 64 hex digits
        #[argh(positional)]
        pub endpoint_id: String,
    }

    /// start or stop talking to other nodes, or show how much was said
    #[argh(subcommand, name = "sync", help_triggers("-h", "--help"))]
    Sync {
        /// start, stop or stats
        #[argh(positional)]
        pub action: Action,
    }

    /// show the agents of the fleet, wherever they are attached
    #[argh(subcommand, name = "agents", help_triggers("-h", "--help"))]
    Agents {
        /// only those that are live, stale or dead
        #[argh(option, arg_name = "STATE")]
        pub status: Option<State>,
        /// then print every change, until interrupted
        #[argh(switch)]
        pub watch: bool,
    }

    /// show the commands this node knows and how far they are, the oldest first
    #[argh(subcommand, name = "commands", help_triggers("-h", "--help"))]
    Commands {
        /// only those for this agent, and what it made of them
        #[argh(option, arg_name = "ID")]
        pub agent: Option<String>,
        /// only what an agent may still accept
        #[argh(switch)]
        pub pending: bool,
        /// only those that are pending, executing, completed, failed, cancelled or expired; may be given several times
        #[argh(option, arg_name = "STATUS")]
        pub status: Vec<Outcome>,
    }

    /// send a command to an agent, a group or all, wherever they are attached, and print its id
    #[argh(subcommand, name = "send", help_triggers("-h", "--help"))]
    Send {
        /// to this agent
        #[argh(option, arg_name = "ID")]
        pub agent: Option<String>,
        /// to the live agents of this group
        #[argh(option, arg_name = "G")]
        pub group: Option<String>,
        /// to every live agent
        #[argh(switch)]
        pub all: bool,
        /// time within which it must be accepted, 0 for no limit (PEAT_NODE_COMMAND_TTL, or 60 s)
        #[argh(option, arg_name = "S")]
        pub ttl: Option<String>,
        /// wait until it is over everywhere, printing each step; exits with 1 unless all completed it
        #[argh(switch)]
        pub wait: bool,
        /// type of the command, as the agents define it
        #[argh(positional, arg_name = "type")]
        pub command_type: String,
        /// the payload: JSON, @FILE, or - for standard input (none)
        #[argh(positional)]
        pub payload: Option<String>,
    }

    /// ask for the end of a command; it is over once its agents' nodes confirm
    #[argh(subcommand, name = "cancel", help_triggers("-h", "--help"))]
    Cancel {
        /// the command's id
        #[argh(positional)]
        pub id: String,
    }
}

/// Value of `agents --status`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct State(pub peat_ipc::sidecar::Liveness);

impl std::str::FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<State, String> {
        let name = format!("LIVENESS_{}", text.to_ascii_uppercase());
        let known = peat_ipc::sidecar::Liveness::from_str_name(&name).filter(|state| *state as i32 != 0);
        known.map(State).ok_or_else(|| format!("'{text}' is none of live, stale, dead"))
    }
}

/// Value of `commands --status`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome(pub peat_ipc::sidecar::CommandStatus);

impl std::str::FromStr for Outcome {
    type Err = String;

    fn from_str(text: &str) -> Result<Outcome, String> {
        let name = format!("COMMAND_STATUS_{}", text.to_ascii_uppercase());
        let known = peat_ipc::sidecar::CommandStatus::from_str_name(&name).filter(|status| *status as i32 != 0);
        known
            .map(Outcome)
            .ok_or_else(|| format!("'{text}' is none of pending, executing, completed, failed, cancelled, expired"))
    }
}

/// Action of `sync`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    Start,
    Stop,
    Stats,
}

impl std::str::FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Action, String> {
        match text {
            "start" => Ok(Action::Start),
            "stop" => Ok(Action::Stop),
            "stats" => Ok(Action::Stats),
            _ => Err(format!("'{text}' is none of start, stop, stats")),
        }
    }
}

/// forward datagrams between nodes that cannot reach each other; keeps nothing, and is no node
#[derive(ArgsInfo, Debug, FromArgs)]
#[argh(subcommand, name = "relay", help_triggers("-h", "--help"))]
pub struct Relay {
    /// UDP address (PEAT_NODE_RELAY_LISTEN, or 0.0.0.0:4243)
    #[argh(option, arg_name = "ADDR")]
    pub listen: Option<String>,
    /// file that holds the key its users know, in base64; without it the formation key is that
    #[argh(option, arg_name = "FILE")]
    pub relay_key_file: Option<String>,
    /// file that holds the formation key in base64
    #[argh(option, arg_name = "FILE")]
    pub shared_key_file: Option<String>,
    /// bind its thread to one processor (false)
    #[argh(option, arg_name = "true|false")]
    pub pin: Option<String>,
    /// log filter, as for `run` (info)
    #[argh(option, arg_name = "FILTER")]
    pub log: Option<String>,
}

/// print this node's endpoint id; makes its key when there is none yet
#[derive(ArgsInfo, Debug, FromArgs)]
#[argh(subcommand, name = "id", help_triggers("-h", "--help"))]
pub struct Id {
    /// the node's data directory (the one `run` would use)
    #[argh(option, arg_name = "DIR")]
    pub data_dir: Option<String>,
}

/// make keys: without --out prints a new shared key, with it writes a shared key and node identities
#[derive(ArgsInfo, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "keygen",
    help_triggers("-h", "--help"),
    note = "With --out DIR: DIR/shared.key (for --shared-key-file) and DIR/1 to DIR/N, each a data directory that holds one identity.key. Prints number and endpoint id of each. Nothing that exists is overwritten."
)]
pub struct Keygen {
    /// directory to write to
    #[argh(option, arg_name = "DIR")]
    pub out: Option<String>,
    /// number of identities (1)
    #[argh(option, arg_name = "N")]
    pub count: Option<u32>,
}

/// read the whole database of a node that is stopped, and say what of it is damaged; changes nothing
#[derive(ArgsInfo, Debug, FromArgs)]
#[argh(subcommand, name = "verify", help_triggers("-h", "--help"))]
pub struct Verify {
    /// the node's data directory (the one `run` would use)
    #[argh(option, arg_name = "DIR")]
    pub data_dir: Option<String>,
}

/// print a completion script for bash, zsh or fish
#[derive(ArgsInfo, Debug, FromArgs)]
#[argh(subcommand, name = "completions", help_triggers("-h", "--help"))]
pub struct Completions {
    /// bash, zsh or fish
    #[argh(positional)]
    pub shell: String,
}

/// Arguments of `check`, which are the flags of `run`.
#[derive(Debug)]
pub struct Check(pub Flags);

const CHECK: &str = "say whether `run` with these flags could start, without starting or touching anything";

impl FromArgs for Check {
    fn from_args(name: &[&str], arguments: &[&str]) -> Result<Check, EarlyExit> {
        let about_run = Flags::get_args_info().description;
        let described = |exit: EarlyExit| EarlyExit { output: exit.output.replacen(about_run, CHECK, 1), ..exit };
        Flags::from_args(name, arguments).map(Check).map_err(described)
    }
}

impl SubCommand for Check {
    const COMMAND: &'static CommandInfo = &CommandInfo { name: "check", short: &'\0', description: CHECK };
}

impl ArgsInfo for Check {
    fn get_args_info() -> CommandInfoWithArgs {
        CommandInfoWithArgs { name: "check", description: CHECK, ..Flags::get_args_info() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_takes_the_flags_of_run_and_describes_itself() {
        let exit = Arguments::from_args(&["peat-node"], &["check", "--help"]).expect_err("help");
        assert!(exit.status.is_ok() && exit.output.contains(CHECK) && exit.output.contains("--flush-interval"));
    }
}
