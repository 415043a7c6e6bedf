//! Flags of a node, as text: one definition for parsing, help, the environment, completions and the tables of docs/cli.md.
//!
//! Holds the text as it was given; [`super::resolve()`] validates it. The comments on the fields are the help text.

use std::fmt;

use argh::{ArgsInfo, FromArgs};

/// start a node; this is what happens without a command
#[derive(ArgsInfo, Clone, Default, Eq, FromArgs, PartialEq)]
#[argh(subcommand, name = "run", help_triggers("-h", "--help"))]
#[allow(rustdoc::invalid_html_tags, reason = "the comments are the help text")]
pub struct Flags {
    /// address for clients, unix:///PATH or tcp://HOST:PORT; repeatable (unix://<runtime dir>/peat-node.sock)
    #[argh(option, arg_name = "ADDR")]
    pub listen: Vec<String>,
    /// directory of documents and keys ($STATE_DIRECTORY, else /data/peat-node if it exists, else XDG state)
    #[argh(option, arg_name = "DIR")]
    pub data_dir: Option<String>,
    /// name of this node (a random UUID, created once and kept)
    #[argh(option, arg_name = "ID")]
    pub node_id: Option<String>,
    /// application id; nodes with different ones never communicate (peat-default)
    #[argh(option, arg_name = "ID")]
    pub app_id: Option<String>,
    /// formation key in base64, at least 16 bytes: admits every node that proves it; prefer --shared-key-file
    #[argh(option, arg_name = "B64")]
    pub shared_key: Option<String>,
    /// file that holds the formation key in base64
    #[argh(option, arg_name = "FILE")]
    pub shared_key_file: Option<String>,
    /// a node to link with: ID@HOST:PORT or ID@relay:HOST:PORT, more after +; a bare ID dials us; repeatable, comma-separated
    #[argh(option, arg_name = "PEER")]
    pub peer: Vec<String>,
    /// UDP address for other nodes; port 0 takes a free one (0.0.0.0:4242)
    #[argh(option, arg_name = "ADDR")]
    pub bind: Option<String>,
    /// UDP address of a relay in this node, which forwards datagrams between nodes that cannot reach each other (none)
    #[argh(option, arg_name = "ADDR")]
    pub relay_listen: Option<String>,
    /// file that holds the key that relays accept, in base64, at least 16 bytes (the formation key)
    #[argh(option, arg_name = "FILE")]
    pub relay_key_file: Option<String>,
    /// false: start in radio silence, until `sync start` (true)
    #[argh(option, arg_name = "true|false")]
    pub auto_sync: Option<String>,
    /// remember `sync start` and `sync stop` across restarts (false)
    #[argh(option, arg_name = "true|false")]
    pub persist_sync: Option<String>,
    /// an agent on this machine to poll for its state: http://HOST:PORT or https://HOST:PORT
    #[argh(option, arg_name = "URL")]
    pub agent_addr: Option<String>,
    /// name of the agent of --agent-addr in the fleet (the node's id)
    #[argh(option, arg_name = "ID")]
    pub agent_id: Option<String>,
    /// seconds between two polls of --agent-addr (10)
    #[argh(option, arg_name = "SECONDS")]
    pub agent_poll_interval: Option<String>,
    /// file with the certificate shown to --agent-addr, PEM
    #[argh(option, arg_name = "FILE")]
    pub agent_tls_cert: Option<String>,
    /// file with the private key of --agent-tls-cert, PEM
    #[argh(option, arg_name = "FILE")]
    pub agent_tls_key: Option<String>,
    /// file with the authorities trusted for an https --agent-addr, PEM; none is built in
    #[argh(option, arg_name = "FILE")]
    pub agent_tls_ca: Option<String>,
    /// interval of agents' heartbeats, seconds or a number with s, m, h, d (30)
    #[argh(option, arg_name = "TIME")]
    pub heartbeat: Option<String>,
    /// an agent is STALE after this long without a heartbeat (90)
    #[argh(option, arg_name = "TIME")]
    pub stale_after: Option<String>,
    /// an agent is DEAD after it was STALE for this long (300)
    #[argh(option, arg_name = "TIME")]
    pub dead_after: Option<String>,
    /// time for which a command waits for its agent, when the sender sets none (60)
    #[argh(option, arg_name = "TIME")]
    pub command_ttl: Option<String>,
    /// time for which ended commands are kept (7d)
    #[argh(option, arg_name = "TIME")]
    pub command_retention: Option<String>,
    /// endpoint id of a node that may issue commands; repeatable, comma-separated (every member)
    #[argh(option, arg_name = "ID")]
    pub trust_issuer: Vec<String>,
    /// send rate to each peer, such as 64kbit or 2mbit, or to one peer, ID=RATE; repeatable (no limit)
    #[argh(option, arg_name = "RATE")]
    pub link_rate: Vec<String>,
    /// one more collection without history; repeatable (platforms, tracks, deployments, packages, agents)
    #[argh(option, arg_name = "NAME")]
    pub latest_collection: Vec<String>,
    /// seconds for which a document without history may stay unflushed (1)
    #[argh(option, arg_name = "SECONDS")]
    pub flush_interval: Option<String>,
    /// memory for cached pages and loaded documents (8388608)
    #[argh(option, arg_name = "BYTES")]
    pub cache_bytes: Option<String>,
    /// bind each thread to one processor (false)
    #[argh(option, arg_name = "true|false")]
    pub pin: Option<String>,
    /// group of admins, by name or number
    #[argh(option, arg_name = "GROUP")]
    pub admin_group: Option<String>,
    /// group that owns the socket, by name or number (the process's)
    #[argh(option, arg_name = "GROUP")]
    pub socket_group: Option<String>,
    /// permissions of the socket, octal (0660)
    #[argh(option, arg_name = "MODE")]
    pub socket_mode: Option<String>,
    /// file that holds the bearer token that TCP callers must send
    #[argh(option, arg_name = "FILE")]
    pub api_token_file: Option<String>,
    /// make TCP callers admins without a token (false)
    #[argh(option, arg_name = "true|false")]
    pub insecure_api: Option<String>,
    /// let every caller write the platforms, deployments and packages of agents of other users (false)
    #[argh(option, arg_name = "true|false")]
    pub open_documents: Option<String>,
    /// file of NAME=value lines with the names of the environment's variables, weaker than both and read again at SIGHUP; -FILE
    /// may be missing
    #[argh(option, arg_name = "FILE")]
    pub settings: Option<String>,
    /// log filter: off, error, warn, info, debug, trace, or MODULE=LEVEL, comma-separated (info)
    #[argh(option, arg_name = "FILTER")]
    pub log: Option<String>,
}

/// Flags that mean `true` without a value.
pub const BARE: [&str; 5] = ["--auto-sync", "--persist-sync", "--pin", "--insecure-api", "--open-documents"];

impl fmt::Debug for Flags {
    /// Formats the main flags, without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flags")
            .field("listen", &self.listen)
            .field("data_dir", &self.data_dir)
            .field("node_id", &self.node_id)
            .field("shared_key", &self.shared_key.as_ref().map(|_| "***"))
            .field("peer", &self.peer)
            .field("bind", &self.bind)
            .finish_non_exhaustive()
    }
}
