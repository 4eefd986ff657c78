//! A connection to systemd over D-Bus: calls, their answers, and the ends of jobs.
//!
//! One thread and one socket: calls are written, and whatever arrives is read until the answer is there. Every wait has
//! a deadline. Root speaks to systemd itself where its socket is, which needs no message bus to live.

use super::message::{self, Call, FIXED, Message};
use super::value::{Reader, Value};
use crate::sys::{Errno, fs, words};
use anyhow::{Context, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long systemd may take for one request, the job that it starts included.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Pauses while the listener's queue is full.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// systemd's own socket, for root.
const PRIVATE: &str = "/run/systemd/private";
/// The system's message bus.
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";
const BUS_OBJECT: &str = "/org/freedesktop/DBus";
const HINT: &str = "failed to connect to dbus (hint: for rootless containers, maybe you need to install dbus-user-session \
                    package)";

/// A call that was answered by an error.
#[derive(Debug)]
pub struct Refused {
    /// Name of the error.
    pub name: String,
    /// What the other side says.
    pub words: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.words.is_empty() {
            true => f.write_str(&self.name),
            false => f.write_str(&self.words),
        }
    }
}

impl std::error::Error for Refused {}

/// A request that had no answer in time.
#[derive(Debug)]
struct Unanswered;

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "no answer from systemd within {} s", TIMEOUT.as_secs())
    }
}

impl std::error::Error for Unanswered {}

/// Is this the error of D-Bus with this last part of its name?
pub fn is_refusal(error: &anyhow::Error, name: &str) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.name.rsplit('.').next() == Some(name))
}

/// Whose systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The system's.
    System,
    /// This user's.
    User,
}

/// A connection.
pub struct Bus {
    socket: OwnedFd,
    received: Vec<u8>,
    serial: u32,
    /// How jobs ended: object, result.
    ended: HashMap<String, String>,
    deadline: Instant,
}

impl Bus {
    /// Connects and says who we are. The errors of a user without a bus hint at the package.
    pub fn connect(whose: Whose) -> Result<Bus> {
        let deadline = Instant::now() + TIMEOUT;
        let (socket, direct) = open(whose, deadline).context(HINT)?;
        let mut bus = Bus { socket, received: Vec::new(), serial: 0, ended: HashMap::new(), deadline };
        bus.greet(direct).context(HINT)?;
        Ok(bus)
    }

    fn greet(&mut self, direct: bool) -> Result<()> {
        // The other side takes who we are from the socket: a number of ours may mean another user there (user namespaces).
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        loop {
            let line = self.line()?;
            match line.split(' ').next().unwrap_or_default() {
                "DATA" => {}
                "OK" => break,
                _ => bail!("authentication failed: {line}"),
            }
        }
        if direct {
            return Ok(());
        }
        let hello = self.begin(&call_bus("Hello", &[]))?;
        let rule = format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'");
        let watch = self.begin(&call_bus("AddMatch", &[Value::text(rule)]))?;
        self.answer(hello)?;
        self.answer(watch)?;
        Ok(())
    }

    /// Gives the next request its whole time.
    pub fn renew(&mut self) {
        self.deadline = Instant::now() + TIMEOUT;
    }

    /// Calls a method of systemd's manager; the body of the answer.
    pub fn call(&mut self, member: &str, arguments: &[Value]) -> Result<Vec<u8>> {
        self.renew();
        let call = Call { destination: SYSTEMD, path: OBJECT, interface: MANAGER, member, arguments };
        let serial = self.begin(&call)?;
        self.answer(serial)
    }

    /// A property of systemd's manager that is a string.
    pub fn manager_property(&mut self, name: &str) -> Result<String> {
        self.property(OBJECT, MANAGER, name)
    }

    /// A property that is a string.
    pub fn property(&mut self, path: &str, interface: &str, name: &str) -> Result<String> {
        self.renew();
        let arguments = [Value::text(interface), Value::text(name)];
        let call = Call {
            destination: SYSTEMD,
            path,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            arguments: &arguments,
        };
        let serial = self.begin(&call)?;
        let body = self.answer(serial)?;
        let mut reader = Reader::new(&body);
        match reader.signature()? {
            "s" => Ok(reader.string()?.into()),
            other => bail!("property {name} has the type {other:?}"),
        }
    }

    /// Calls a method that answers with a job, and waits for its end: the result, `done` if all went well.
    pub fn job(&mut self, member: &str, arguments: &[Value]) -> Result<String> {
        let body = self.call(member, arguments)?;
        let job = Reader::new(&body).string()?.to_string();
        loop {
            if let Some(result) = self.ended.remove(&job) {
                return Ok(result);
            }
            self.receive()?;
        }
    }

    fn begin(&mut self, call: &Call) -> Result<u32> {
        self.serial += 1;
        self.send(&call.bytes(self.serial))?;
        Ok(self.serial)
    }

    fn answer(&mut self, serial: u32) -> Result<Vec<u8>> {
        loop {
            match self.receive()? {
                Message::Return(of, body) if of == serial => return Ok(body),
                Message::Error(of, name, words) if of == serial => return Err(Refused { name, words }.into()),
                _ => {}
            }
        }
    }

    /// The next message; what it says of jobs is noted down.
    fn receive(&mut self) -> Result<Message> {
        while self.received.len() < FIXED {
            self.read()?;
        }
        let length = message::length(&self.received[..FIXED])?;
        while self.received.len() < length {
            self.read()?;
        }
        let message = message::parse(&self.received[..length])?;
        self.received.drain(..length);
        if let Message::Signal(member, body) = &message
            && member == "JobRemoved"
        {
            // Number, object, unit, result.
            let mut reader = Reader::new(body);
            reader.u32()?;
            let (job, _, result) = (reader.string()?, reader.string()?, reader.string()?);
            self.ended.insert(job.into(), result.into());
        }
        Ok(message)
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.received[..end]).into_owned();
                self.received.drain(..end + 2);
                return Ok(line);
            }
            if self.received.len() > 4096 {
                bail!("authentication failed: an endless line");
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match fs::read(self.socket.as_fd(), &mut buffer) {
                Ok(0) => return Err(Errno::ECONNRESET).context("read from systemd"),
                Ok(length) => {
                    self.received.extend_from_slice(&buffer[..length]);
                    return Ok(());
                }
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLIN)?,
                Err(errno) => return Err(errno).context("read from systemd"),
            }
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(length) => bytes = &bytes[length..],
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLOUT)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("write to systemd"),
            }
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(Unanswered);
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.socket.as_fd(), flags)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno).context("wait for systemd"),
        }
    }
}

fn call_bus<'a>(member: &'a str, arguments: &'a [Value]) -> Call<'a> {
    Call { destination: BUS, path: BUS_OBJECT, interface: BUS, member, arguments }
}

/// Does systemd, or the message bus, take connections and say nothing?
pub fn is_unanswered(error: &anyhow::Error) -> bool {
    error.is::<Unanswered>()
}

/// Has the connection broken off, as it does when systemd executes itself anew?
pub fn is_lost(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<Errno>(), Some(Errno::ECONNRESET | Errno::EPIPE))
}

/// The socket, and whether systemd itself is behind it rather than a message bus.
fn open(whose: Whose, deadline: Instant) -> Result<(OwnedFd, bool)> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if whose == Whose::System {
        let bus = variable("DBUS_SYSTEM_BUS_ADDRESS");
        if bus.is_none()
            && nix::unistd::geteuid().is_root()
            && let Ok(socket) = connect_to(&UnixAddr::new(PRIVATE)?, deadline)
        {
            return Ok((socket, true));
        }
        return Ok((open_address(bus.as_deref().unwrap_or(SYSTEM_BUS), deadline)?, false));
    }
    if let Some(bus) = variable("DBUS_SESSION_BUS_ADDRESS") {
        return Ok((open_address(&bus, deadline)?, false));
    }
    let Some(directory) = variable("XDG_RUNTIME_DIR") else {
        bail!("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set");
    };
    let mut failure = None;
    for (name, direct) in [("bus", false), ("systemd/private", true)] {
        let path = format!("{directory}/{name}");
        match connect_to(&UnixAddr::new(path.as_str())?, deadline) {
            Ok(socket) => return Ok((socket, direct)),
            Err(errno) => {
                failure.get_or_insert_with(|| anyhow!("connect to {path}: {}", words(errno)));
            }
        }
    }
    Err(failure.unwrap_or_else(|| anyhow!("no bus")))
}

/// The first address of a list (D-Bus specification, "Server Addresses") that is a unix socket and answers.
fn open_address(list: &str, deadline: Instant) -> Result<OwnedFd> {
    let mut failure = None;
    for address in unix_addresses(list) {
        let socket = match &address {
            Address::Path(path) => UnixAddr::new(path.as_slice()),
            Address::Abstract(name) => UnixAddr::new_abstract(name),
        }
        .and_then(|address| connect_to(&address, deadline));
        match socket {
            Ok(socket) => return Ok(socket),
            Err(errno) => failure = Some(anyhow!("connect to {list}: {}", words(errno))),
        }
    }
    Err(failure.unwrap_or_else(|| anyhow!("{list:?}: no address of a unix socket")))
}

#[derive(Debug, PartialEq)]
enum Address {
    Path(Vec<u8>),
    Abstract(Vec<u8>),
}

fn unix_addresses(list: &str) -> Vec<Address> {
    let one = |address: &str| {
        let options = address.strip_prefix("unix:")?;
        options.split(',').find_map(|option| match option.split_once('=')? {
            ("path", path) => Some(Address::Path(unescape(path))),
            ("abstract", name) => Some(Address::Abstract(unescape(name))),
            _ => None,
        })
    };
    list.split(';').filter_map(one).collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%').then(|| std::str::from_utf8(after.get(..2)?).ok()).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

fn connect_to(address: &UnixAddr, deadline: Instant) -> crate::sys::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    loop {
        match connect(socket.as_raw_fd(), address) {
            // Its queue is full.
            Err(Errno::EAGAIN) if Instant::now() < deadline => std::thread::sleep(CONNECT_PAUSE),
            Err(Errno::EINTR) => {}
            other => return other.map(|()| socket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let path = |path: &str| Address::Path(path.into());
        assert_eq!(unix_addresses("unix:path=/run/bus"), [path("/run/bus")]);
        assert_eq!(unix_addresses("tcp:host=x;unix:guid=1,path=/a%20b"), [path("/a b")]);
        assert_eq!(unix_addresses("unix:abstract=x,guid=1"), [Address::Abstract(b"x".to_vec())]);
        assert_eq!(unix_addresses("unix:path=/%zz%4"), [path("/%zz%4")]);
        assert_eq!(unix_addresses("nonsense"), []);
    }
}
