//! `linux.netDevices`: moves interfaces of the runtime's network namespace into the container's, and back if the container
//! does not come to be. Once it has, they are the namespace's (config-linux.md "Network Devices").

use crate::netlink::{Address, Link, Netlink};
use crate::plan::net_devices::NetDevice;
use crate::sys::{Errno, fs, process};
use anyhow::{Context, Result, bail};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const OWN: &std::ffi::CStr = c"/proc/self/ns/net";

/// A network namespace: its file, and a way to speak to it.
struct Side {
    file: OwnedFd,
    netlink: Netlink,
}

impl Side {
    /// The one that this process is in.
    fn here() -> Result<Side> {
        let file = fs::open(OWN, libc::O_RDONLY, 0).context("open the own network namespace")?;
        Ok(Side { file, netlink: Netlink::open().context("make a netlink socket")? })
    }
}

/// The runtime's side, and what has been moved away from it.
pub struct Devices {
    home: Side,
    away: Option<Side>,
    moved: Vec<Moved>,
}

/// An interface as it was at home.
struct Moved {
    link: Link,
    addresses: Vec<Address>,
    /// Its index in the container.
    index: i32,
}

impl Devices {
    /// Notes where the interfaces come from; nothing when there are none to move.
    pub fn prepare(list: &[NetDevice]) -> Result<Option<Devices>> {
        if list.is_empty() {
            return Ok(None);
        }
        Ok(Some(Devices { home: Side::here()?, away: None, moved: Vec::new() }))
    }

    /// Moves them into the network namespace behind `file`, or of the process behind it. Once only.
    pub fn move_into(&mut self, list: &[NetDevice], file: BorrowedFd) -> Result<()> {
        if self.away.is_some() {
            return Ok(());
        }
        process::setns(file, libc::CLONE_NEWNET).context("enter the container's network namespace")?;
        let away = Side::here();
        process::setns(self.home.file.as_fd(), libc::CLONE_NEWNET)
            .context("return to the own network namespace")?;
        self.move_all(list, away?)
    }

    fn move_all(&mut self, list: &[NetDevice], away: Side) -> Result<()> {
        let away = self.away.insert(away);
        for device in list {
            let moved = move_one(device, &self.home, away)?;
            let index = moved.index;
            // From here on an error takes it back.
            self.moved.push(moved);
            let Some(moved) = self.moved.last() else { continue };
            for address in &moved.addresses {
                away.netlink
                    .add_address(index, address)
                    .with_context(|| format!("{}: add an address", device.pointer()))?;
            }
            away.netlink
                .set_up(index, true)
                .with_context(|| format!("{}: switch it on", device.pointer()))?;
        }
        Ok(())
    }

    /// The container has come to be: the interfaces stay.
    pub fn leave(mut self) {
        self.moved.clear();
    }
}

impl Drop for Devices {
    /// Takes back what was moved, as it was. What fails here cannot be told: the error that led here is the one to tell.
    fn drop(&mut self) {
        let Some(away) = &self.away else { return };
        for moved in self.moved.iter().rev() {
            let _ = give_back(moved, &self.home, away);
        }
    }
}

fn find<'a>(links: &'a [Link], name: &str) -> Option<&'a Link> {
    links.iter().find(|link| link.name == name)
}

/// Moves an interface; it is off then, and without addresses.
fn move_one(device: &NetDevice, home: &Side, away: &Side) -> Result<Moved> {
    let pointer = device.pointer();
    let links = home.netlink.links().context("list the network interfaces")?;
    let Some(link) = find(&links, &device.host).cloned() else {
        bail!("{pointer}: no network device {:?} in the runtime's network namespace", device.host);
    };
    // Before it is switched off, which takes the addresses of IPv6.
    let addresses =
        home.netlink.addresses(link.index).with_context(|| format!("{pointer}: list addresses"))?;
    let before = away.netlink.links().context("list the container's network interfaces")?;
    // The kernel would move it first and fail to rename it then.
    if !device.is_template() && find(&before, &device.name).is_some() {
        bail!(
            "{pointer}/name: a network device {:?} exists in the container (EEXIST: file exists)",
            device.name
        );
    }
    let moved = home
        .netlink
        .set_up(link.index, false)
        .and_then(|()| home.netlink.move_to(link.index, &away.file, &device.name));
    let found = away.netlink.links().map(|links| {
        // Not one that was there, and the same hardware: somebody else may add interfaces meanwhile.
        let new = |new: &&Link| !before.contains(new) && new.address == link.address;
        links
            .iter()
            .find(|new| new.name == device.name)
            .or_else(|| links.iter().find(new))
            .map(|link| link.index)
    });
    let index = match (moved, found) {
        (Ok(()), Ok(Some(index))) => return Ok(Moved { link, addresses, index }),
        (Ok(()), Ok(None)) => bail!("{pointer}: it is gone after it was moved"),
        (Ok(()), Err(errno)) => return Err(errno).context("list the container's network interfaces"),
        (Err(errno), found) => {
            let undone = Moved { link, addresses, index: found.ok().flatten().unwrap_or(0) };
            // Half-way or still at home; the errno is the one to tell.
            let _ = give_back(&undone, home, away);
            errno
        }
    };
    Err(index).with_context(|| format!("{pointer}: move it to the container's network namespace"))
}

/// Moves it home under its name, with its addresses and as it was switched.
fn give_back(moved: &Moved, home: &Side, away: &Side) -> Result<(), Errno> {
    let name = &moved.link.name;
    if find(&home.netlink.links()?, name).is_none() {
        away.netlink.set_up(moved.index, false)?;
        away.netlink.move_to(moved.index, &home.file, name)?;
    }
    let links = home.netlink.links()?;
    let index = find(&links, name).ok_or(Errno::ENODEV)?.index;
    for address in &moved.addresses {
        home.netlink.add_address(index, address)?;
    }
    home.netlink.set_up(index, moved.link.is_up())
}
