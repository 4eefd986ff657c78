//! Descriptor passing over unix sockets.

use super::{Result, uninterrupted};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends `data` with exactly one descriptor, as console-socket and pidfd-socket readers expect it.
pub fn send_fd(socket: BorrowedFd, data: &[u8], fd: BorrowedFd) -> Result<()> {
    let fds = [fd.as_raw_fd()];
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(data)],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    if sent == data.len() { Ok(()) } else { Err(super::Errno::EIO) }
}

/// Waits for a message on a socket that keeps them apart and says how long it is, in bytes; 0 at the other's end. The message
/// stays there.
pub fn next_length(socket: BorrowedFd) -> Result<usize> {
    use nix::sys::socket::recv;
    uninterrupted(|| recv(socket.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC))
}

/// Receives exactly one descriptor, close-on-exec; `EPROTO` when none comes.
pub fn receive_fd(socket: BorrowedFd) -> Result<std::os::fd::OwnedFd> {
    use nix::sys::socket::{ControlMessageOwned, recvmsg};
    let mut data = [0u8; 4096];
    let mut parts = [std::io::IoSliceMut::new(&mut data)];
    let mut control = nix::cmsg_space!(std::os::fd::RawFd);
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part
            && let Some(&fd) = fds.first()
        {
            return Ok(super::fs::adopt(fd));
        }
    }
    Err(super::Errno::EPROTO)
}

/// Receives one message and the first descriptor that comes with it, close-on-exec; nothing at all at the other's end.
pub fn receive(socket: BorrowedFd, buffer: &mut [u8]) -> Result<(usize, Option<std::os::fd::OwnedFd>)> {
    uninterrupted(|| receive_once(socket, buffer))
}

fn receive_once(socket: BorrowedFd, buffer: &mut [u8]) -> Result<(usize, Option<std::os::fd::OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, recvmsg};
    let mut parts = [std::io::IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(std::os::fd::RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(super::Errno::EMSGSIZE);
    }
    let mut fd = None;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            fd = fds.first().map(|&fd| super::fs::adopt(fd));
        }
    }
    Ok((message.bytes, fd))
}
