// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the service is called: a socket in the file system, and one that only the host reaches.

use std::fs;
use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::AddressFamily;
use rustix::net::getsockname;
use rustix::process::PidfdFlags;
use rustix::process::PidfdGetfdFlags;
use rustix::process::getpid;
use rustix::process::pidfd_getfd;
use rustix::process::pidfd_open;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_vsock::VMADDR_CID_ANY;
use tokio_vsock::VMADDR_CID_HOST;
use tokio_vsock::VsockAddr;
use tokio_vsock::VsockListener;

use super::http::Service;
use super::world::Caller;
use super::world::World;
use crate::cgroup;
use crate::cli::ServeArguments;
use crate::exit::Failure;
use crate::output::plain;
use crate::supervised::Limits;
use crate::supervised::Supervisor;

/// How many connections there can be at once. Those beyond have to wait.
const CONNECTIONS: usize = 64;
/// After how long is tried again where there are too many files open.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a program may take that answers at once where all is well.
const PATIENCE: Duration = Duration::from_secs(10);

/// A socket that others connect to.
#[derive(Debug)]
pub enum Listener {
    /// In the file system.
    Unix(tokio::net::UnixListener),
    /// For the host.
    Vsock(VsockListener),
}

impl Listener {
    /// All that are asked for, and those that systemd has made.
    pub fn all(arguments: &ServeArguments) -> Result<Vec<Self>, Failure> {
        let mut listeners = Vec::new();
        let numbers = sd_notify::listen_fds().map_err(Failure::io("take systemd's sockets"))?;
        for number in numbers {
            let socket = taken(number).and_then(Self::of);
            listeners.push(socket.map_err(Failure::io("take a socket of systemd's"))?);
        }
        if let Some(path) = &arguments.socket {
            listeners.push(Self::unix(path, arguments)?);
        }
        if let Some(port) = arguments.vsock_port {
            let address = VsockAddr::new(VMADDR_CID_ANY, port);
            let listener = VsockListener::bind(address);
            let listener = listener.map_err(Failure::io(format!("listen at vsock port {port}")))?;
            listeners.push(Self::Vsock(listener));
        }
        Ok(listeners)
    }

    fn of(socket: OwnedFd) -> io::Result<Self> {
        match getsockname(&socket)?.address_family() {
            AddressFamily::UNIX => Self::of_unix(UnixListener::from(socket)),
            AddressFamily::VSOCK => {
                rustix::io::ioctl_fionbio(&socket, true)?;
                Ok(Self::Vsock(VsockListener::from(socket)))
            }
            _ => Err(io::Error::other(
                "it is neither a Unix socket nor AF_VSOCK: anybody else could call",
            )),
        }
    }

    fn of_unix(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(tokio::net::UnixListener::from_std(listener)?))
    }

    /// Makes one in the place of one whose service is gone.
    fn unix(path: &Path, arguments: &ServeArguments) -> Result<Self, Failure> {
        let shown = path.display();
        let group = arguments.socket_group.as_deref().map(group).transpose()?;
        let make = || -> io::Result<Self> {
            let is_socket = |metadata: fs::Metadata| metadata.file_type().is_socket();
            if fs::symlink_metadata(path).is_ok_and(is_socket) {
                fs::remove_file(path)?;
            }
            // Until it has its mode, nobody connects who may not: its directory is not the world's.
            let listener = UnixListener::bind(path)?;
            chown(path, None, group)?;
            fs::set_permissions(path, Permissions::from_mode(arguments.socket_mode))?;
            Self::of_unix(listener)
        };
        make().map_err(Failure::io(format!("listen at {shown}")))
    }

    /// Serves for ever.
    pub async fn serve<W: World + 'static>(self, service: Service<W>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let service = service.clone();
            match self.accept().await {
                Ok(Some((stream, caller))) => drop(tokio::spawn(async move {
                    service.serve(stream, caller).await;
                    drop(permit);
                })),
                Ok(None) => {}
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// The next one who may call.
    async fn accept(&self) -> io::Result<Option<(Box<dyn Stream>, Caller)>> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let pid = stream.peer_cred()?.pid();
                let pid = pid.and_then(|pid| u32::try_from(pid).ok());
                let cgroup = pid.and_then(cgroup::of);
                Ok(Some((Box::new(stream), Caller { cgroup })))
            }
            Self::Vsock(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(is_host(address.cid()).then(|| (Box::new(stream) as _, Caller::default())))
            }
        }
    }
}

/// Another machine, or a process of this one, has another number.
fn is_host(cid: u32) -> bool {
    cid == VMADDR_CID_HOST
}

/// What a connection is.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A descriptor that systemd has left to this process: a second one of it, which is ours.
fn taken(number: i32) -> io::Result<OwnedFd> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(own, number, PidfdGetfdFlags::empty())?)
}

/// The number of a group, by whatever the system asks for it.
fn group(name: &str) -> Result<u32, Failure> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let ran = Supervisor::new(Limits::each(PATIENCE), None)
        .run(Command::new("getent").args(["group", "--", name]));
    let number = ran
        .said
        .split(':')
        .nth(2)
        .and_then(|text| text.parse().ok());
    number.filter(|_| ran.end.succeeded()).ok_or_else(|| {
        let (end, said) = (&ran.end, plain(ran.said.trim()));
        Failure::Refused(format!("there is no group {name} (getent: {end}: {said})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_calls() {
        assert!(is_host(2));
        for other in [0, 1, 3, u32::MAX] {
            assert!(!is_host(other), "{other}");
        }
    }

    #[test]
    fn a_descriptor_of_ours_is_taken() {
        use std::os::fd::AsRawFd;
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let taken = taken(one.as_raw_fd()).expect("it is ours");
        let family = getsockname(&taken)
            .expect("it is a socket")
            .address_family();
        assert_eq!(family, AddressFamily::UNIX);
    }

    #[test]
    fn groups_have_numbers() {
        assert_eq!(group("7").expect("it is one"), 7);
        assert_eq!(group("root").expect("it is one"), 0);
        assert!(group("no-such-group").is_err());
    }
}
