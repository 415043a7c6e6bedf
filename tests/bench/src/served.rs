//! A peer in a separate process, killed when the measurement is over.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bench_peers::{Caller, Failure, Peer, Sizes, connect};

use crate::bench::Bench;
use crate::wait::wait_for;

pub(crate) struct Served {
    child: Child,
    peer: Peer,
    socket: PathBuf,
    sizes: Sizes,
}

impl Served {
    pub(crate) fn start(bench: &Bench, peer: Peer, sizes: Sizes) -> Result<Served, Failure> {
        let socket = bench.directory(&format!("peer-{peer}"))?.join("socket");
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg(peer.to_string())
            .arg(&socket)
            .args([sizes.request.to_string(), sizes.response.to_string()])
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Served { child, peer, socket, sizes })
    }

    pub(crate) fn caller(&self) -> Result<Box<dyn Caller>, Failure> {
        wait_for(|| connect(self.peer, &self.socket, self.sizes))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
