// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the program says of itself: the protocol of `sd_notify(3)`, of which this is the other end.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use rustix::cmsg_space;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::AddressFamily;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::net::bind;
use rustix::net::getsockname;
use rustix::net::recvmsg;
use rustix::net::socket_with;
use rustix::net::sockopt::set_socket_passcred;
use rustix::process::Pid;
use sd_notify::NotifyState;

use crate::process::Stat;

/// No message of the protocol is longer.
const LONGEST: usize = 4096;
/// How many processes there may be between the program and one of its that speaks.
const DEEPEST: usize = 64;

/// What is true of us as well, and so is passed on. Not that it ends, or which process it is: that is
/// for us to say.
const PASSED_ON: [&str; 8] = [
    "READY",
    "RELOADING",
    "MONOTONIC_USEC",
    "STATUS",
    "ERRNO",
    "BUSERROR",
    "WATCHDOG",
    "EXTEND_TIMEOUT_USEC",
];

/// The longest abstract name there can be, behind the zero that it begins with.
const LONGEST_NAME: usize = 107;
/// How often another name is tried where somebody has the longer form of it.
const TRIES: usize = 100;

/// Where the program says it.
#[derive(Debug)]
pub struct Socket {
    /// One with the name, and one with the name that goes on with zeros to its greatest length: so programs
    /// call it that give the kernel a whole `sockaddr_un`, as OpenSSH's server does.
    sockets: [OwnedFd; 2],
    /// Readable when one of them is.
    either: OwnedFd,
    name: OsString,
}

/// A message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// It is up, or has done what it said that it began.
    pub is_ready: bool,
    /// It has begun to do what a signal asked for.
    pub is_reloading: bool,
    /// When it was, by the monotonic clock, in microseconds.
    pub at: Option<u64>,
    /// What there is to pass on.
    lines: String,
}

impl Socket {
    /// One with a name that nobody else can have taken, and that needs no file: the program finds it from
    /// another root, and as another user.
    pub fn new() -> io::Result<Self> {
        let either = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for _ in 0..TRIES {
            let plain = bound(&SocketAddrUnix::new_unnamed())?;
            let address = SocketAddrUnix::try_from(getsockname(&plain)?)?;
            let mut name = address.abstract_name().unwrap_or_default().to_vec();
            let shown = OsString::from_vec([b"@", &name[..]].concat());
            name.resize(LONGEST_NAME, 0);
            let padded = match bound(&SocketAddrUnix::new_abstract_name(&name)?) {
                Err(Errno::ADDRINUSE) => continue,
                bound => bound?,
            };
            for socket in [&plain, &padded] {
                let data = epoll::EventData::new_u64(0);
                epoll::add(&either, socket, data, epoll::EventFlags::IN)?;
            }
            return Ok(Self {
                sockets: [plain, padded],
                either,
                name: shown,
            });
        }
        Err(Errno::ADDRINUSE.into())
    }

    /// What `NOTIFY_SOCKET` has to be.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// The next message of the program, or of a process of its. Others are not heeded.
    pub fn receive(&self, program: Pid) -> io::Result<Option<Message>> {
        for socket in &self.sockets {
            if let Some(message) = receive(socket, program)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}

/// A socket with that name.
fn bound(name: &SocketAddrUnix) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    set_socket_passcred(&socket, true)?;
    bind(&socket, name)?;
    Ok(socket)
}

/// The next message that has come there.
fn receive(socket: &OwnedFd, program: Pid) -> io::Result<Option<Message>> {
    loop {
        let mut bytes = [0; LONGEST];
        // For descriptors that come along there is no room, and the kernel closes them.
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmCredentials(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        let length = match received {
            Ok(received) => received.bytes,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let sender = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid),
            _ => None,
        });
        if sender.is_some_and(|sender| is_of(program, sender)) {
            return Ok(Some(Message::of(&bytes[..length])));
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.either.as_fd()
    }
}

impl Message {
    fn of(bytes: &[u8]) -> Self {
        let mut message = Self::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            match (key, value) {
                ("READY", "1") => message.is_ready = true,
                ("RELOADING", "1") => message.is_reloading = true,
                ("MONOTONIC_USEC", _) => message.at = value.parse().ok(),
                _ => {}
            }
            if PASSED_ON.contains(&key) {
                message.lines.push_str(line);
                message.lines.push('\n');
            }
        }
        message
    }

    /// One that says either.
    #[cfg(test)]
    pub fn for_tests(is_ready: bool, at: Option<u64>) -> Self {
        Self {
            is_ready,
            is_reloading: !is_ready,
            at,
            lines: String::new(),
        }
    }

    /// Passes it on to whoever has started us, if he wants to know.
    pub fn pass_on(&self) {
        if !self.lines.is_empty() {
            let _ = sd_notify::notify(&[NotifyState::Custom(self.lines.trim_end())]);
        }
    }
}

/// Whether a process is the program, in its process group, or descends from it.
fn is_of(program: Pid, process: Pid) -> bool {
    let mut at = process.as_raw_pid();
    for _ in 0..DEEPEST {
        if at == program.as_raw_pid() {
            return true;
        }
        let stat = fs::read_to_string(format!("/proc/{at}/stat")).unwrap_or_default();
        let Some(stat) = Stat::of(&stat) else {
            return false;
        };
        if stat.group == program.as_raw_pid() {
            return true;
        }
        at = stat.parent;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::SocketAddr;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use rustix::event::PollFd;
    use rustix::event::PollFlags;
    use rustix::event::Timespec;
    use rustix::event::poll;
    use rustix::process::getpid;

    use super::*;

    fn say(socket: &Socket, text: &str) {
        say_to(&socket.name().as_bytes()[1..], text);
    }

    fn say_to(name: &[u8], text: &str) {
        let address = SocketAddr::from_abstract_name(name).expect("it is a name");
        let sender = UnixDatagram::unbound().expect("there is room");
        let sent = sender.send_to_addr(text.as_bytes(), &address);
        sent.expect("somebody listens");
    }

    #[test]
    fn messages_are_understood_and_what_is_not_ours_to_say_stays() {
        let message = Message::of(b"RELOADING=1\nMONOTONIC_USEC=17\nSTOPPING=1\nMAINPID=7\nx\n");
        assert!(message.is_reloading && !message.is_ready);
        assert_eq!(message.at, Some(17));
        assert_eq!(message.lines, "RELOADING=1\nMONOTONIC_USEC=17\n");
        let message = Message::of(b"READY=0\nSTATUS=a=b");
        assert!(!message.is_ready);
        assert_eq!(message.lines, "READY=0\nSTATUS=a=b\n");
        assert!(Message::of(b"X=\xff\nREADY=1").is_ready);
    }

    #[test]
    fn only_the_program_is_heard() {
        let socket = Socket::new().expect("there is room");
        say(&socket, "READY=1");
        let other = Pid::from_raw(i32::MAX).expect("it is a number");
        assert_eq!(socket.receive(other).expect("it can be read"), None);
        say(&socket, "READY=1");
        say(&socket, "STATUS=x");
        let next = || socket.receive(getpid()).expect("it can be read");
        assert!(next().expect("it was said").is_ready);
        assert!(!next().expect("it was said").is_ready);
        assert_eq!(next(), None);
    }

    #[test]
    fn who_gives_a_whole_address_is_heard() {
        let socket = Socket::new().expect("there is room");
        let mut name = socket.name().as_bytes()[1..].to_vec();
        // struct sockaddr_un has 110 bytes: two for the family, and one is the zero.
        name.resize(110 - 2 - 1, 0);
        let is_readable = || {
            let mut fds = [PollFd::new(&socket, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::default())).expect("it can be asked") == 1
        };
        assert!(!is_readable());
        say_to(&name, "READY=1");
        assert!(is_readable());
        let said = socket.receive(getpid()).expect("it can be read");
        assert!(said.expect("it was said").is_ready);
        assert!(!is_readable());
    }

    #[test]
    fn so_are_its_children() {
        let mut child = Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("it is there");
        let number = i32::try_from(child.id()).expect("it is a number");
        let pid = Pid::from_raw(number).expect("it is a number");
        assert!(is_of(getpid(), pid));
        assert!(!is_of(pid, getpid()));
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
    }
}
