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
    /// where clients connect, unix:///PATH or tcp://HOST:PORT; repeatable (unix://<runtime dir>/peat-node.sock)
    #[argh(option, arg_name = "ADDR")]
    pub listen: Vec<String>,
    /// where documents and keys are kept ($STATE_DIRECTORY, else /data/peat-node where it exists, else XDG state)
    #[argh(option, arg_name = "DIR")]
    pub data_dir: Option<String>,
    /// what this node calls itself (a random UUID, made once and kept)
    #[argh(option, arg_name = "ID")]
    pub node_id: Option<String>,
    /// nodes of different applications never talk (peat-default)
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
    /// UDP address other nodes reach us at; port 0 takes a free one (0.0.0.0:4242)
    #[argh(option, arg_name = "ADDR")]
    pub bind: Option<String>,
    /// be a relay too, at this UDP address: forward datagrams between nodes that cannot reach each other (none)
    #[argh(option, arg_name = "ADDR")]
    pub relay_listen: Option<String>,
    /// file that holds the key relays take, in base64, at least 16 bytes (the formation key)
    #[argh(option, arg_name = "FILE")]
    pub relay_key_file: Option<String>,
    /// false: start in radio silence, until `sync start` (true)
    #[argh(option, arg_name = "true|false")]
    pub auto_sync: Option<String>,
    /// remember `sync start` and `sync stop` across restarts (false)
    #[argh(option, arg_name = "true|false")]
    pub persist_sync: Option<String>,
    /// an agent on this machine that is asked for its state: http://HOST:PORT or https://HOST:PORT
    #[argh(option, arg_name = "URL")]
    pub agent_addr: Option<String>,
    /// what the fleet calls the agent of --agent-addr (the node's id)
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
    /// file with the authorities that may vouch for an https --agent-addr, PEM; nobody else is trusted
    #[argh(option, arg_name = "FILE")]
    pub agent_tls_ca: Option<String>,
    /// how often an agent gives a sign of life, seconds or a number with s, m, h, d (30)
    #[argh(option, arg_name = "TIME")]
    pub heartbeat: Option<String>,
    /// without a sign of life for this long an agent is STALE (90)
    #[argh(option, arg_name = "TIME")]
    pub stale_after: Option<String>,
    /// an agent that has been STALE for this long is DEAD (300)
    #[argh(option, arg_name = "TIME")]
    pub dead_after: Option<String>,
    /// how long a command may wait for its agent when its sender does not say (60)
    #[argh(option, arg_name = "TIME")]
    pub command_ttl: Option<String>,
    /// how long commands are kept after they ended (7d)
    #[argh(option, arg_name = "TIME")]
    pub command_retention: Option<String>,
    /// a node whose commands are delivered, by endpoint id; repeatable, comma-separated (every member)
    #[argh(option, arg_name = "ID")]
    pub trust_issuer: Vec<String>,
    /// how fast a link may send, 64kbit or 2mbit say, for each peer; or one peer's, ID=RATE; repeatable (as fast as it goes)
    #[argh(option, arg_name = "RATE")]
    pub link_rate: Vec<String>,
    /// one more collection whose documents keep no history; repeatable (platforms, tracks, deployments, packages, agents)
    #[argh(option, arg_name = "NAME")]
    pub latest_collection: Vec<String>,
    /// seconds a document without history may stay unflushed (1)
    #[argh(option, arg_name = "SECONDS")]
    pub flush_interval: Option<String>,
    /// memory for cached pages and loaded documents (8388608)
    #[argh(option, arg_name = "BYTES")]
    pub cache_bytes: Option<String>,
    /// give each thread a processor of its own (false)
    #[argh(option, arg_name = "true|false")]
    pub pin: Option<String>,
    /// group whose members may do everything, by name or number
    #[argh(option, arg_name = "GROUP")]
    pub admin_group: Option<String>,
    /// group that owns the socket, by name or number (the service's own)
    #[argh(option, arg_name = "GROUP")]
    pub socket_group: Option<String>,
    /// permissions of the socket, octal (0660)
    #[argh(option, arg_name = "MODE")]
    pub socket_mode: Option<String>,
    /// file that holds the bearer token callers over TCP must show
    #[argh(option, arg_name = "FILE")]
    pub api_token_file: Option<String>,
    /// let anybody who reaches a TCP listener do everything (false)
    #[argh(option, arg_name = "true|false")]
    pub insecure_api: Option<String>,
    /// let every caller write the platforms, deployments and packages of agents of other users (false)
    #[argh(option, arg_name = "true|false")]
    pub open_documents: Option<String>,
    /// file of NAME=value lines with the names of the environment's variables, weaker than both and read again at SIGHUP; -FILE
    /// may be missing
    #[argh(option, arg_name = "FILE")]
    pub settings: Option<String>,
    /// what to log: off, error, warn, info, debug, trace, or MODULE=LEVEL, comma-separated (info)
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
