//! Listening sockets: created with their final owner and mode, and never taken from a running node.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, chownat, fstat, openat};

use super::credentials;
use super::sockets::Stream;
use crate::api::Caller;
use crate::config::{Access, Listen};

/// A listener that could not be opened, and the reason.
#[derive(Debug)]
pub struct BindError {
    what: String,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    /// Another node accepts connections there.
    Taken,
    /// A file that is not a socket is in the way.
    NoSocket,
    /// A TCP address that other machines can reach, without a token or `--insecure-api`.
    Exposed,
    Machine(io::Error),
}

impl BindError {
    pub(super) fn machine(what: impl Into<String>, cause: io::Error) -> BindError {
        BindError { what: what.into(), reason: Reason::Machine(cause) }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = &self.what;
        match &self.reason {
            Reason::Taken => write!(f, "{what}: a running node answers there; give this one another --listen"),
            Reason::NoSocket => write!(f, "{what}: there is a file that is not a socket; move it away"),
            Reason::Exposed => write!(
                f,
                "{what}: other machines could reach this address; give --api-token-file, or --insecure-api to let \
                 everybody in"
            ),
            Reason::Machine(cause) => write!(f, "{what}: {cause}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            Reason::Machine(cause) => Some(cause),
            _ => None,
        }
    }
}

/// A unix socket that the service manager opened and passed on. It is served as it is, and its file is not removed.
#[derive(Debug)]
pub struct InheritedListener {
    /// Address to which clients connect.
    pub path: PathBuf,
    /// The listening socket.
    pub listener: std::os::unix::net::UnixListener,
}

/// The file of a socket that this node created.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode, because another node may have replaced the file since. While the socket is open, no other file has the
    /// same pair.
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // A file that is left behind is replaced by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// One open listener. Dropping it removes the file of a unix socket that it created, unless another node replaced the file.
#[derive(Debug)]
pub(super) struct Listener {
    /// Declared before `socket`, so that it is dropped while the open socket still keeps the inode from being reused.
    _file: Option<SocketFile>,
    socket: Socket,
    address: Listen,
}

impl Listener {
    pub(super) fn bind(
        address: &Listen,
        access: &Access,
        registry: &Registry,
        token: Token,
    ) -> Result<Listener, BindError> {
        let failed = |reason| BindError { what: format!("--listen {address}"), reason };
        let machine = |cause| failed(Reason::Machine(cause));
        let listener = match address {
            Listen::Unix(path) => {
                clear(path).map_err(failed)?;
                let (socket, file) = bind_unix(path, access).map_err(machine)?;
                Listener { _file: Some(file), socket: Socket::Unix(socket), address: address.clone() }
            }
            Listen::Tcp(_) if !address.is_local() && access.token.is_none() && !access.insecure => {
                return Err(failed(Reason::Exposed));
            }
            Listen::Tcp(at) => bind_tcp(*at).map_err(machine)?,
        };
        listener.registered(registry, token).map_err(machine)
    }

    /// Serves a socket that the service manager passed on.
    pub(super) fn take(handed: InheritedListener, registry: &Registry, token: Token) -> Result<Listener, BindError> {
        let address = Listen::Unix(handed.path);
        let failed = |cause| BindError::machine(format!("the socket handed over for {address}"), cause);
        handed.listener.set_nonblocking(true).map_err(failed)?;
        let socket = Socket::Unix(UnixListener::from_std(handed.listener));
        Listener { _file: None, socket, address: address.clone() }.registered(registry, token).map_err(failed)
    }

    fn registered(mut self, registry: &Registry, token: Token) -> io::Result<Listener> {
        match &mut self.socket {
            Socket::Unix(socket) => registry.register(socket, token, Interest::READABLE),
            Socket::Tcp(socket) => registry.register(socket, token, Interest::READABLE),
        }?;
        Ok(self)
    }

    /// Returns the address it listens on.
    pub(super) fn address(&self) -> &Listen {
        &self.address
    }

    /// Accepts the next client; `None` if no connection is waiting.
    pub(super) fn accept(&mut self) -> io::Result<Option<(Stream, Caller)>> {
        loop {
            let accepted = match &self.socket {
                Socket::Unix(socket) => socket.accept().map(|(stream, _)| {
                    let caller = credentials::caller(&stream);
                    (Stream::Unix(stream), caller)
                }),
                Socket::Tcp(socket) => socket.accept().and_then(|(stream, _)| {
                    stream.set_nodelay(true)?;
                    Ok((Stream::Tcp(stream), Caller::Tcp))
                }),
            };
            match accepted {
                Ok(accepted) => return Ok(Some(accepted)),
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // The client disconnected before it was accepted.
                Err(cause) if matches!(cause.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                }
                Err(cause) => return Err(cause),
            }
        }
    }
}

/// Checks that no node accepts connections at `path`; a socket left by a node that died may be replaced.
fn clear(path: &Path) -> Result<(), Reason> {
    match std::fs::symlink_metadata(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(Reason::Machine(cause)),
        Ok(file) if !file.file_type().is_socket() => Err(Reason::NoSocket),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(Reason::Taken),
            Err(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(cause) => Err(Reason::Machine(cause)),
        },
    }
}

/// Binds the socket under a temporary name, sets its mode and group, and only then renames it into place: no unauthorized process
/// can connect in between, and a dead node's file is replaced atomically.
fn bind_unix(path: &Path, access: &Access) -> io::Result<(UnixListener, SocketFile)> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut hidden = path.file_name().unwrap_or_default().to_owned();
    hidden.push("~");
    let hidden = path.with_file_name(hidden);
    match std::fs::remove_file(&hidden) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let socket = UnixListener::bind(&hidden)?;
    let made = open_made(&hidden)?;
    let mut file = SocketFile { path: hidden.clone(), inode: (made.dev(), made.ino()) };
    // On an error, dropping `file` removes the temporary file.
    permit(&made, access).and_then(|()| std::fs::rename(&hidden, path))?;
    path.clone_into(&mut file.path);
    Ok((socket, file))
}

/// The file of a socket that was just created, held by descriptor, so that replacing its name has no effect.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    descriptor: OwnedFd,
    stat: Stat,
}

impl Made {
    fn dev(&self) -> u64 {
        self.stat.st_dev
    }

    fn ino(&self) -> u64 {
        self.stat.st_ino
    }
}

/// Opens the new socket's file. If the directory belongs to another user, the file may have been replaced already; its type,
/// owner or link count would then differ.
fn open_made(path: &Path) -> io::Result<Made> {
    let descriptor = openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&descriptor)?;
    let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
    if !is_socket || stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_nlink != 1 {
        return Err(io::Error::other("something else was put in the place of the socket while it was made"));
    }
    Ok(Made { path: path.to_owned(), descriptor, stat })
}

/// Sets the group and mode of the socket, through its descriptor.
fn permit(made: &Made, access: &Access) -> io::Result<()> {
    chmod(made, 0o600)?;
    if let Some(group) = access.socket_group {
        chownat(&made.descriptor, "", None, Some(Gid::from_raw(group.0)), AtFlags::EMPTY_PATH)?;
    }
    chmod(made, access.socket_mode)
}

/// Sets the mode. An `O_PATH` descriptor does not support fchmod(2); its name in /proc does, and cannot be redirected. Without
/// /proc the socket's own name is used, if no other user can replace the file.
fn chmod(made: &Made, mode: u32) -> io::Result<()> {
    let permissions = std::fs::Permissions::from_mode(mode);
    match std::fs::set_permissions(format!("/proc/self/fd/{}", made.descriptor.as_raw_fd()), permissions.clone()) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && !Path::new("/proc/self/fd").exists() => {
            guard(&made.path)?;
            std::fs::set_permissions(&made.path, permissions)
        }
        done => done,
    }
}

/// Rejects a socket in a directory that another user may write to.
fn guard(socket: &Path) -> io::Result<()> {
    let directory = std::fs::metadata(socket.parent().unwrap_or(Path::new("/")))?;
    let own = [0, rustix::process::geteuid().as_raw()].contains(&directory.uid());
    if own && directory.mode() & 0o022 == 0 {
        return Ok(());
    }
    let remedy = "/proc is not mounted, and others may write to the directory of the socket; mount it, or take a directory of its own";
    Err(io::Error::other(remedy))
}

fn bind_tcp(at: SocketAddr) -> io::Result<Listener> {
    let socket = TcpListener::bind(at)?;
    let address = Listen::Tcp(socket.local_addr()?);
    Ok(Listener { _file: None, socket: Socket::Tcp(socket), address })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").mode() & 0o777
    }

    #[test]
    fn what_was_put_in_the_place_of_a_new_socket_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let (other, hidden) = (directory.path().join("other"), directory.path().join("x.sock~"));
        std::fs::write(&other, "").expect("written");
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).expect("set");
        symlink(&other, &hidden).expect("made");
        open_made(&hidden).expect_err("a link");
        std::fs::remove_file(&hidden).expect("there");
        std::fs::hard_link(&other, &hidden).expect("made");
        open_made(&hidden).expect_err("a file");
        std::fs::remove_file(&hidden).expect("there");
        let socket = directory.path().join("socket");
        let _listener = UnixListener::bind(&socket).expect("bound");
        std::fs::hard_link(&socket, &hidden).expect("made");
        open_made(&hidden).expect_err("a socket with another name");
        assert_eq!(mode(&other), 0o600);
    }

    #[test]
    fn without_proc_a_socket_is_refused_where_others_may_write() {
        let directory = tempfile::tempdir().expect("a directory");
        let permit = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(directory.path(), permissions).expect("set");
            guard(&directory.path().join("x.sock~"))
        };
        permit(0o755).expect("nobody else writes here");
        permit(0o777).expect_err("anybody does");
        permit(0o775).expect_err("a group does");
    }

    #[test]
    fn a_socket_gets_its_mode_though_its_name_leads_somewhere_else_by_then() {
        let directory = tempfile::tempdir().expect("a directory");
        let (other, socket) = (directory.path().join("other"), directory.path().join("x.sock~"));
        std::fs::write(&other, "").expect("written");
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).expect("set");
        let _listener = UnixListener::bind(&socket).expect("bound");
        let made = open_made(&socket).expect("a socket");
        let moved = directory.path().join("moved");
        std::fs::rename(&socket, &moved).expect("moved");
        symlink(&other, &socket).expect("made");
        chmod(&made, 0o666).expect("set");
        assert_eq!((mode(&moved), mode(&other)), (0o666, 0o600));
    }
}
