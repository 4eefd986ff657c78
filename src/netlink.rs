//! The little of rtnetlink(7) that moving interfaces takes: list, move and rename, addresses, up and down.
//!
//! A socket stays in the network namespace in which it was made, so one process can speak to two of them.

use crate::sys::{Errno, Result};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::os::fd::{AsRawFd, OwnedFd};

/// Room for one datagram of a dump; the kernel sends no more than 32 KiB at once.
const DATAGRAM: usize = 64 << 10;
const HEADER: usize = 16;
const IFINFO: usize = 16;
const IFADDR: usize = 8;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// In its namespace.
    pub index: i32,
    /// In its namespace.
    pub name: String,
    /// `IFF_*`.
    pub flags: u32,
    /// Hardware address.
    pub address: Vec<u8>,
}

impl Link {
    /// Is it switched on?
    pub fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }
}

/// An address of an interface: what is needed to add it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    scope: u8,
    flags: u32,
    /// The attributes that are part of it, as they came.
    attributes: Vec<(u16, Vec<u8>)>,
}

/// A netlink socket of one network namespace.
pub struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// Opens one in this process's present network namespace.
    pub fn open() -> Result<Netlink> {
        let kind = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, kind)?;
        Ok(Netlink { socket })
    }

    /// All interfaces.
    pub fn links(&self) -> Result<Vec<Link>> {
        let messages = self.call(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; IFINFO])?;
        Ok(messages.iter().filter_map(|message| link(message)).collect())
    }

    /// The addresses of an interface.
    pub fn addresses(&self, index: i32) -> Result<Vec<Address>> {
        let messages = self.call(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; IFADDR])?;
        Ok(messages.iter().filter_map(|message| address(message, index)).collect())
    }

    /// Adds an address; one that is there already is fine.
    pub fn add_address(&self, index: i32, address: &Address) -> Result<()> {
        let mut body = vec![address.family, address.prefix, address.flags as u8, address.scope];
        body.extend_from_slice(&index.to_ne_bytes());
        for (kind, value) in &address.attributes {
            push(&mut body, *kind, value);
        }
        match self.call(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body) {
            Ok(_) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Switches an interface on or off.
    pub fn set_up(&self, index: i32, up: bool) -> Result<()> {
        let flags = if up { libc::IFF_UP as u32 } else { 0 };
        self.call(libc::RTM_NEWLINK, 0, &ifinfo(index, flags, libc::IFF_UP as u32)).map(drop)
    }

    /// Moves an interface to the network namespace behind `namespace` under a name, in one request.
    pub fn move_to(&self, index: i32, namespace: &impl AsRawFd, name: &str) -> Result<()> {
        let mut body = ifinfo(index, 0, 0);
        push(&mut body, libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        push(&mut body, libc::IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
        self.call(libc::RTM_NEWLINK, 0, &body).map(drop)
    }

    /// Sends a request and collects the bodies of the answer, up to its end.
    fn call(&self, kind: u16, flags: i32, body: &[u8]) -> Result<Vec<Vec<u8>>> {
        let dump = flags & libc::NLM_F_DUMP == libc::NLM_F_DUMP;
        let ack = if dump { 0 } else { libc::NLM_F_ACK };
        let mut request = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&((flags | ack | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        request.extend_from_slice(&[0; 8]);
        request.extend_from_slice(body);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            if read_answer(&buffer[..length], &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// Takes the messages of one datagram apart. True at the end of the answer.
pub fn read_answer(mut rest: &[u8], answers: &mut Vec<Vec<u8>>) -> Result<bool> {
    while rest.len() >= HEADER {
        let length = number(&rest[..4]) as usize;
        let kind = u16::from_ne_bytes([rest[4], rest[5]]) as i32;
        let message = rest.get(HEADER..length).ok_or(Errno::EPROTO)?;
        match kind {
            libc::NLMSG_ERROR => {
                let errno = message.get(..4).map(|bytes| number(bytes) as i32).ok_or(Errno::EPROTO)?;
                return if errno == 0 { Ok(true) } else { Err(Errno::from_raw(errno.wrapping_neg())) };
            }
            libc::NLMSG_DONE => return Ok(true),
            _ => answers.push(message.to_vec()),
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

fn ifinfo(index: i32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(&index.to_ne_bytes());
    body.extend_from_slice(&flags.to_ne_bytes());
    body.extend_from_slice(&change.to_ne_bytes());
    body
}

/// An interface from the body of its message.
pub fn link(message: &[u8]) -> Option<Link> {
    let head = message.get(..IFINFO)?;
    let mut link = Link {
        index: number(&head[4..8]) as i32,
        name: String::new(),
        flags: number(&head[8..12]),
        address: vec![],
    };
    for (kind, value) in attributes(&message[IFINFO..]) {
        match kind {
            libc::IFLA_IFNAME => link.name = String::from_utf8_lossy(value.strip_suffix(b"\0")?).into_owned(),
            libc::IFLA_ADDRESS => link.address = value.to_vec(),
            _ => {}
        }
    }
    Some(link)
}

/// A permanent address of global scope, which is what the spec has moved.
pub fn address(message: &[u8], index: i32) -> Option<Address> {
    const IFA_F_NODAD: u32 = 0x02;
    const IFA_F_PERMANENT: u32 = 0x80;
    const IFA_F_NOPREFIXROUTE: u32 = 0x200;
    const IFA_FLAGS: u16 = 8;
    const IFA_RT_PRIORITY: u16 = 9;
    const RT_SCOPE_UNIVERSE: u8 = 0;
    let head = message.get(..IFADDR).filter(|head| number(&head[4..8]) as i32 == index)?;
    let mut address = Address {
        family: head[0],
        prefix: head[1],
        scope: head[3],
        flags: head[2].into(),
        attributes: vec![],
    };
    for (kind, value) in attributes(&message[IFADDR..]) {
        match kind {
            libc::IFA_LOCAL | libc::IFA_ADDRESS | libc::IFA_BROADCAST | IFA_RT_PRIORITY => {
                address.attributes.push((kind, value.to_vec()));
            }
            IFA_FLAGS if value.len() == 4 => address.flags = number(value),
            _ => {}
        }
    }
    if address.scope != RT_SCOPE_UNIVERSE || address.flags & IFA_F_PERMANENT == 0 {
        return None;
    }
    address.flags &= IFA_F_NODAD | IFA_F_NOPREFIXROUTE;
    address.attributes.push((IFA_FLAGS, address.flags.to_ne_bytes().to_vec()));
    Some(address)
}

/// The attributes of a message; a malformed rest is left out.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn push(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(aligned(body.len()), 0);
}

/// Messages and attributes begin at multiples of four.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_listed() {
        let netlink = Netlink::open().unwrap();
        let links = netlink.links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert!(lo.flags & libc::IFF_LOOPBACK as u32 != 0 && lo.address == [0; 6]);
        // Its address is of host scope, which stays behind.
        assert_eq!(netlink.addresses(lo.index).unwrap(), []);
        assert_eq!(netlink.set_up(i32::MAX, true), Err(Errno::ENODEV));
    }

    #[test]
    fn malformed_answers_are_errors_and_never_read_beyond() {
        let mut answers = vec![];
        let message = |length: u32, kind: u16, body: &[u8]| {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&[0; 10]);
            bytes.extend_from_slice(body);
            bytes
        };
        assert_eq!(read_answer(&message(99, 16, &[0; 4]), &mut answers), Err(Errno::EPROTO));
        assert_eq!(read_answer(&message(3, 16, &[]), &mut answers), Err(Errno::EPROTO));
        assert_eq!(read_answer(&message(16, 2, &[]), &mut answers), Err(Errno::EPROTO));
        assert_eq!(read_answer(&message(20, 2, &(-17i32).to_ne_bytes()), &mut answers), Err(Errno::EEXIST));
        assert!(read_answer(&message(20, 2, &i32::MIN.to_ne_bytes()), &mut answers).is_err());
        assert_eq!(read_answer(&message(20, 2, &[0; 4]), &mut answers), Ok(true));
        assert_eq!(read_answer(&[], &mut answers), Ok(false));
        assert!(answers.is_empty());
        assert_eq!(attributes(&[3, 0, 1, 0, 9]).count(), 0);
        assert_eq!(attributes(&[5, 0, 1, 0, 9]).collect::<Vec<_>>(), [(1, &[9][..])]);
        assert_eq!(attributes(&[200, 0, 1, 0, 9]).count(), 0);
    }
}
