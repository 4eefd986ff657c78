//! The wire between the runtime and the init stage: one SOCK_SEQPACKET pair, one small frame a message.
//!
//! ```text
//! runtime (parent)                          init stage (child)
//!   clone3 ────────────────────────────────▶ joins cgroups and namespaces, mounts
//!   ◀───────────────────────── Born{pid} ──   } only if namespaces are joined before a user namespace:
//!                                            } a process in the middle has made the child, and ends
//!   systemd makes the cgroup                 } only with the systemd driver; the child
//!   ── CgroupReady ────────────────────────▶ } waits before anything else
//!   writes the maps of a user namespace       } only with a new user namespace, which owns the other
//!   ── Mapped ─────────────────────────────▶ } namespaces: then there is no NamespacesReady
//!   those of network, IPC, UTS are made
//!   ── NamespacesReady ────────────────────▶ enters them (setns on a pidfd), mounts sysfs, mqueue
//!   ◀───────────────── NeedSource{index} ──  only in a user namespace: a bind mount that its root cannot reach
//!   loads the device program, limits, state
//!   ◀─────────────────────── MountsDone ──   } only if there are prestart or
//!   prestart, createRuntime hooks            } createRuntime hooks
//!   ── HooksDone ──────────────────────────▶ }
//!                                            createContainer hooks, masks, pivot, user, capabilities
//!   ── Filter{program} ────────────────────▶ only with a seccomp profile, compiled meanwhile; without those
//!                                            hooks before the runtime has written the state
//!   ── Proceed ────────────────────────────▶ everything outside is in place
//!   ◀────────────────── Listener{fd} ──   } only with SCMP_ACT_NOTIFY: the runtime takes
//!   ── ListenerTaken ──────────────────────▶ } the descriptor to the agent
//!   ◀──────────────────────────── Ready ──   create only; then the child waits at the gate
//!   ◀─── end of file: execve closed it ───   run only
//!   ◀─────────────────── Failed{step,..} ──  at any time, followed by exit
//! ```
//!
//! Each side learns of the other's death by end of file, so no wait can outlive its reason; whether the other side can run
//! at all is a question for `patience.rs`. The gate (`start` → init
//! stage) is a socket of the same kind bound in the state directory: `start` sends `Proceed`, the child answers
//! `Failed` or, by its execve, end of file. Where a filter that is in force by then forbids accept(2), the gate is two pipes
//! of the child's, which `start` opens through /proc (`ReadyAt`). Frames are bounded and every field is range-checked when read.

use crate::plan::seccomp::{Filter, MAX_INSTRUCTIONS};
use crate::sys::{Errno, Result, fs, socket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest text in a frame, bytes.
pub const TEXT_MAX: usize = 1000;
const HEAD: usize = 8;
/// Longest filter, bytes: its flags and instructions.
const FILTER_MAX: usize = 4 + 8 * MAX_INSTRUCTIONS;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The namespaces that are made ahead are there.
    NamespacesReady,
    /// The child has mounted everything and waits for hooks.
    MountsDone,
    /// prestart and createRuntime hooks have run.
    HooksDone,
    /// Device rules, limits and state are in place: the program may run.
    Proceed,
    /// The container is created.
    Ready,
    /// The same, with the numbers of the pipes where it waits.
    ReadyAt,
    /// The child gives up.
    Failed,
    /// The maps of the child's user namespace are written.
    Mapped,
    /// The process in the middle has made the init process, with this pid.
    Born,
    /// The child cannot reach the source of a mount.
    NeedSource,
    /// The child has a seccomp descriptor for the agent.
    Listener,
    /// The agent has it.
    ListenerTaken,
    /// systemd has moved the child to its cgroup, which has its limits.
    CgroupReady,
    /// The compiled seccomp filter.
    Filter,
}

const KINDS: [Kind; 14] = [
    Kind::NamespacesReady,
    Kind::MountsDone,
    Kind::HooksDone,
    Kind::Proceed,
    Kind::Ready,
    Kind::ReadyAt,
    Kind::Failed,
    Kind::Mapped,
    Kind::Born,
    Kind::NeedSource,
    Kind::Listener,
    Kind::ListenerTaken,
    Kind::CgroupReady,
    Kind::Filter,
];

/// A step of the init stage, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// cgroup v1: entering the hierarchies.
    JoinCgroup,
    /// Protecting the runtime's executable.
    Seal,
    /// Entering `/linux/namespaces/N`.
    JoinNamespace,
    /// Making a namespace of one's own.
    NewNamespace,
    /// Becoming root in a user namespace.
    UserNamespace,
    /// Making a time namespace: `/linux/timeOffsets`.
    TimeNamespace,
    /// Session.
    Session,
    /// Session keyring.
    Keyring,
    /// Cutting propagation to the host.
    Isolate,
    /// Making the rootfs a mount point.
    Root,
    /// `/mounts/N`: its source.
    MountSource,
    /// `/mounts/N`: its destination.
    MountTarget,
    /// `/mounts/N`: the mount.
    Mount,
    /// `/mounts/N`: its flags or propagation.
    MountFlags,
    /// `/mounts/N`: its mappings.
    MountIdmap,
    /// `/linux/devices/N`, or a default device.
    Device,
    /// A hook: createContainer N.
    CreateContainerHook,
    /// A hook: startContainer N.
    StartContainerHook,
    /// Terminal.
    Console,
    /// `/linux/maskedPaths/N`.
    Mask,
    /// `/linux/readonlyPaths/N`.
    ReadonlyPath,
    /// `/linux/sysctl` N of the sorted list.
    Sysctl,
    /// `/hostname`.
    Hostname,
    /// `/domainname`.
    Domainname,
    /// pivot_root.
    Pivot,
    /// `/root/readonly`.
    ReadonlyRoot,
    /// Standard streams.
    Stdio,
    /// `/process/scheduler`, `/process/ioPriority`, `/linux/personality`, `/linux/memoryPolicy`,
    /// `/process/execCPUAffinity`.
    Scheduling,
    /// `/process/rlimits/N`.
    Rlimit,
    /// `/process/noNewPrivileges`.
    NoNewPrivileges,
    /// `/linux/seccomp`.
    Seccomp,
    /// `/process/user`.
    User,
    /// `/process/capabilities`.
    Capabilities,
    /// `/process/cwd`.
    Cwd,
    /// `/process/apparmorProfile`, `/process/selinuxLabel`, the label of the session keyring.
    Label,
    /// Looking for the program.
    Find,
    /// Looking for HOME.
    Home,
    /// Closing descriptors.
    CloseFds,
    /// `--preserve-fds`.
    PreservedFd,
    /// Waiting for the runtime or for start.
    Gate,
    /// execve.
    Exec,
}

const STEPS: [Step; 41] = [
    Step::JoinCgroup,
    Step::Seal,
    Step::JoinNamespace,
    Step::NewNamespace,
    Step::UserNamespace,
    Step::TimeNamespace,
    Step::Session,
    Step::Keyring,
    Step::Isolate,
    Step::Root,
    Step::MountSource,
    Step::MountTarget,
    Step::Mount,
    Step::MountFlags,
    Step::MountIdmap,
    Step::Device,
    Step::CreateContainerHook,
    Step::StartContainerHook,
    Step::Console,
    Step::Mask,
    Step::ReadonlyPath,
    Step::Sysctl,
    Step::Hostname,
    Step::Domainname,
    Step::Pivot,
    Step::ReadonlyRoot,
    Step::Stdio,
    Step::Scheduling,
    Step::Rlimit,
    Step::NoNewPrivileges,
    Step::Seccomp,
    Step::User,
    Step::Capabilities,
    Step::Cwd,
    Step::Label,
    Step::Find,
    Step::Home,
    Step::CloseFds,
    Step::PreservedFd,
    Step::Gate,
    Step::Exec,
];

/// Why the init stage gave up: the runtime, which has the plan, turns it into words.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was being done.
    pub step: Step,
    /// To which entry of the plan.
    pub index: usize,
    /// What the kernel said.
    pub errno: Errno,
    /// The kernel's own words (fsconfig's log) or a hook's output; mostly empty.
    pub text: String,
}

/// Names the step at which an errno came up.
pub trait At<T> {
    /// The step alone.
    fn at(self, step: Step) -> std::result::Result<T, Failure>;
    /// The step and the entry of the plan.
    fn at_index(self, step: Step, index: usize) -> std::result::Result<T, Failure>;
}

impl<T> At<T> for Result<T> {
    fn at(self, step: Step) -> std::result::Result<T, Failure> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> std::result::Result<T, Failure> {
        self.map_err(|errno| Failure { step, index, errno, text: String::new() })
    }
}

/// Descriptors of an init process that waits at pipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GatePipes {
    /// Takes the word to go on.
    pub word: u16,
    /// Gives the answer.
    pub answer: u16,
}

/// A frame as received.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Anything but a failure.
    Plain(Kind),
    /// A failure.
    Failed(Failure),
    /// The init process's pid, as the runtime counts.
    Born(i32),
    /// The source of this entry of `/mounts` is wanted.
    NeedSource(usize),
    /// The number of a seccomp descriptor in the child.
    Listener(i32),
    /// The container is created, and waits at these descriptors of its init process.
    ReadyAt(GatePipes),
    /// The other side has ended, or has called execve, after it read everything.
    End,
    /// The other side has ended with frames unread.
    Lost,
}

/// One end of the wire.
pub struct Wire {
    socket: OwnedFd,
    /// The other side has gone without reading everything: the kernel tells only once.
    reset: Cell<bool>,
    /// A pipe has no time limit of its own: then this is it, in seconds.
    limit: Cell<Option<u32>>,
}

impl Wire {
    /// Makes both ends, close-on-exec.
    pub fn pair() -> Result<(Wire, Wire)> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Wire::from_socket(a), Wire::from_socket(b)))
    }

    /// Wraps a connected socket, or the end of a pipe for one direction.
    pub fn from_socket(socket: OwnedFd) -> Wire {
        Wire { socket, reset: Cell::new(false), limit: Cell::new(None) }
    }

    /// Sends a frame without content. That the other side has gone is noticed when its answer is waited for.
    pub fn send(&self, kind: Kind) -> Result<()> {
        self.send_frame(&[kind as u8, 0, 0, 0, 0, 0, 0, 0])
    }

    fn send_frame(&self, frame: &[u8]) -> Result<()> {
        match fs::write_once(self.socket.as_fd(), frame) {
            Err(Errno::EPIPE | Errno::ECONNRESET) => {
                self.reset.set(true);
                Ok(())
            }
            other => other,
        }
    }

    /// Tells the runtime which process became the init process.
    pub fn born(&self, pid: i32) -> Result<()> {
        self.send_number(Kind::Born, pid)
    }

    /// Asks the runtime for the source of an entry of `/mounts`.
    pub fn need_source(&self, index: usize) -> Result<()> {
        self.send_number(Kind::NeedSource, i32::try_from(index).map_err(|_| Errno::EOVERFLOW)?)
    }

    /// Tells the number of the seccomp descriptor, by the one call that a filter never hands to an agent.
    pub fn send_listener(&self, fd: i32) -> Result<()> {
        self.send_number(Kind::Listener, fd)
    }

    /// Tells the runtime at which pipes the container waits.
    pub fn ready_at(&self, at: GatePipes) -> Result<()> {
        let ([a, b], [c, d]) = (at.word.to_le_bytes(), at.answer.to_le_bytes());
        self.send_frame(&[Kind::ReadyAt as u8, 0, 0, 0, a, b, c, d])
    }

    /// Passes the seccomp filter to the init stage; none where the profile allows every call.
    pub fn send_filter(&self, filter: Option<&Filter>) -> Result<()> {
        let agent = filter.is_some_and(|filter| filter.agent.is_some());
        let mut frame = vec![Kind::Filter as u8, agent.into(), 0, 0, 0, 0, 0, 0];
        frame.extend(filter.map(Filter::to_bytes).unwrap_or_default());
        self.send_frame(&frame)
    }

    /// Waits for the filter. Who its agent is, is the runtime's business: here it only shows that there is one. Anything else
    /// in its place, the other side's death included, is `EPIPE`.
    pub fn receive_filter(&self) -> Result<Option<Filter>> {
        let length = socket::next_length(self.socket.as_fd())?;
        if length > HEAD + FILTER_MAX {
            return Err(Errno::EPROTO);
        }
        let mut frame = vec![0; length];
        let length = fs::read(self.socket.as_fd(), &mut frame)?;
        decode_filter(&frame[..length]).ok_or(Errno::EPIPE)
    }

    fn send_number(&self, kind: Kind, number: i32) -> Result<()> {
        let mut frame = [kind as u8, 0, 0, 0, 0, 0, 0, 0];
        frame[4..].copy_from_slice(&number.to_le_bytes());
        fs::write_once(self.socket.as_fd(), &frame)
    }

    /// Reports a failure.
    pub fn fail(&self, failure: &Failure) -> Result<()> {
        let mut frame = [0u8; HEAD + TEXT_MAX];
        let text = &failure.text.as_bytes()[..failure.text.len().min(TEXT_MAX)];
        frame[0] = Kind::Failed as u8;
        frame[1] = failure.step as u8;
        frame[2..4].copy_from_slice(&(failure.index.min(u16::MAX as usize) as u16).to_le_bytes());
        frame[4..8].copy_from_slice(&(failure.errno as i32).to_le_bytes());
        frame[HEAD..HEAD + text.len()].copy_from_slice(text);
        fs::write_once(self.socket.as_fd(), &frame[..HEAD + text.len()])
    }

    /// From now on [`Wire::receive`] gives up with `EAGAIN` after so many seconds.
    pub fn limit(&self, seconds: u32) -> Result<()> {
        use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
        match setsockopt(&self.socket, ReceiveTimeout, &nix::sys::time::TimeVal::new(seconds.into(), 0)) {
            Err(Errno::ENOTSOCK) => {
                self.limit.set(Some(seconds));
                Ok(())
            }
            other => other,
        }
    }

    /// Waits for a frame.
    pub fn receive(&self) -> Result<Frame> {
        if let Some(seconds) = self.limit.get()
            && !self.has_more(PollTimeout::try_from(seconds * 1000).unwrap_or(PollTimeout::MAX))?
        {
            return Err(Errno::EAGAIN);
        }
        let mut buf = [0u8; HEAD + TEXT_MAX];
        let length = match fs::read(self.socket.as_fd(), &mut buf) {
            // Stands before what the other side has still said.
            Err(Errno::ECONNRESET) => {
                self.reset.set(true);
                fs::read(self.socket.as_fd(), &mut buf)?
            }
            // The answer is still there: giving up now would call a container that runs a failure.
            Err(Errno::EIO | Errno::ENOMEM) => fs::read(self.socket.as_fd(), &mut buf)?,
            other => other?,
        };
        match decode(&buf[..length]) {
            Some(Frame::End) if self.reset.get() => Ok(Frame::Lost),
            other => other.ok_or(Errno::EPROTO),
        }
    }

    /// The frame that is there already, if any.
    pub fn receive_now(&self) -> Result<Option<Frame>> {
        if self.has_more(PollTimeout::ZERO)? { self.receive().map(Some) } else { Ok(None) }
    }

    /// Is there a frame, or the end, within so much time?
    fn has_more(&self, time: PollTimeout) -> Result<bool> {
        Ok(poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], time)? != 0)
    }

    /// Waits for exactly `kind`; anything else, the other side's death included, is `EPIPE`.
    pub fn expect(&self, kind: Kind) -> Result<()> {
        match self.receive()? {
            Frame::Plain(got) if got == kind => Ok(()),
            _ => Err(Errno::EPIPE),
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads the frame of a filter: the outer `None` when it is another, or malformed.
pub fn decode_filter(bytes: &[u8]) -> Option<Option<Filter>> {
    let (head, program) = bytes.split_first_chunk::<HEAD>()?;
    if head[0] != Kind::Filter as u8 {
        return None;
    }
    if program.is_empty() {
        return Some(None);
    }
    let filter = Filter::from_bytes(program).filter(|filter| filter.program.len() <= MAX_INSTRUCTIONS)?;
    Some(Some(Filter { agent: (head[1] != 0).then(Box::default), ..filter }))
}

/// Reads a frame; nothing when it is malformed.
pub fn decode(bytes: &[u8]) -> Option<Frame> {
    if bytes.is_empty() {
        return Some(Frame::End);
    }
    let kind = *KINDS.get(bytes[0] as usize)?;
    let head: [u8; HEAD] = bytes.get(..HEAD)?.try_into().ok()?;
    let number = i32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if kind != Kind::Failed {
        return (bytes.len() == HEAD).then_some(match kind {
            Kind::Born => Frame::Born(number),
            Kind::NeedSource => Frame::NeedSource(usize::try_from(number).ok()?),
            Kind::Listener => Frame::Listener(Some(number).filter(|&fd| fd >= 0)?),
            Kind::ReadyAt => Frame::ReadyAt(GatePipes {
                word: u16::from_le_bytes([head[4], head[5]]),
                answer: u16::from_le_bytes([head[6], head[7]]),
            }),
            kind => Frame::Plain(kind),
        });
    }
    Some(Frame::Failed(Failure {
        step: *STEPS.get(head[1] as usize)?,
        index: u16::from_le_bytes([head[2], head[3]]) as usize,
        errno: Errno::from_raw(number),
        text: String::from_utf8_lossy(&bytes[HEAD..]).into_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_follow_the_enums() {
        assert!(KINDS.iter().enumerate().all(|(i, kind)| *kind as usize == i));
        assert!(STEPS.iter().enumerate().all(|(i, step)| *step as usize == i));
        assert_eq!(STEPS[STEPS.len() - 1], Step::Exec);
    }

    #[test]
    fn frames_survive_the_wire() {
        let (a, b) = Wire::pair().unwrap();
        a.send(Kind::Ready).unwrap();
        assert_eq!(b.receive().unwrap(), Frame::Plain(Kind::Ready));
        let pipes = GatePipes { word: 4, answer: 0xfedc };
        a.ready_at(pipes).unwrap();
        assert_eq!(b.receive().unwrap(), Frame::ReadyAt(pipes));
        let failure =
            Failure { step: Step::Exec, index: 70000, errno: Errno::ENOENT, text: "x".repeat(5000) };
        a.fail(&failure).unwrap();
        let Frame::Failed(got) = b.receive().unwrap() else { panic!() };
        assert_eq!((got.step, got.index, got.errno), (Step::Exec, 65535, Errno::ENOENT));
        assert_eq!(got.text.len(), TEXT_MAX);
        a.send_listener(7).unwrap();
        assert_eq!(b.receive().unwrap(), Frame::Listener(7));
        drop(a);
        assert_eq!(b.receive().unwrap(), Frame::End);
        assert_eq!(b.expect(Kind::Proceed), Err(Errno::EPIPE));
        let (a, b) = Wire::pair().unwrap();
        b.send(Kind::Proceed).unwrap();
        drop(a);
        assert_eq!(b.receive().unwrap(), Frame::Lost);
        let (a, b) = Wire::pair().unwrap();
        a.born(70_000).unwrap();
        assert_eq!(b.receive().unwrap(), Frame::Born(70_000));
        a.need_source(3).unwrap();
        assert_eq!(b.receive().unwrap(), Frame::NeedSource(3));
        b.send(Kind::Proceed).unwrap();
        a.fail(&Failure { text: String::new(), ..failure }).unwrap();
        drop(a);
        assert!(matches!(b.receive().unwrap(), Frame::Failed(_)));
        assert_eq!(b.receive().unwrap(), Frame::Lost);
        let (a, b) = Wire::pair().unwrap();
        drop(a);
        b.send(Kind::Proceed).unwrap();
        assert_eq!(b.receive().unwrap(), Frame::Lost);
    }

    #[test]
    fn a_filter_survives_the_wire() {
        let (a, b) = Wire::pair().unwrap();
        let insn = |k| seccompiler::sock_filter { code: 6, jt: 1, jf: 2, k };
        let program: Vec<_> = (0..MAX_INSTRUCTIONS as u32).map(insn).collect();
        let filter = Filter { program, flags: 4, agent: Some(Box::default()) };
        a.send_filter(Some(&filter)).unwrap();
        a.send_filter(Some(&Filter { program: vec![insn(7)], flags: 0, agent: None })).unwrap();
        a.send_filter(None).unwrap();
        a.send(Kind::Proceed).unwrap();
        let got = b.receive_filter().unwrap().unwrap();
        assert_eq!((got.to_bytes(), got.agent.is_some()), (filter.to_bytes(), true));
        let got = b.receive_filter().unwrap().unwrap();
        assert_eq!((got.program.len(), got.flags, got.agent.is_some()), (1, 0, false));
        assert!(b.receive_filter().unwrap().is_none());
        assert!(matches!(b.receive_filter(), Err(Errno::EPIPE)));
        drop(a);
        assert!(matches!(b.receive_filter(), Err(Errno::EPIPE)));
        let (filter, other) = (Kind::Filter as u8, Kind::CgroupReady as u8);
        let frames = [&[filter; 7][..], &[filter; 9], &[filter; 19], &vec![filter; 32784]];
        for bytes in frames.into_iter().chain([&[][..], &[other, 0, 0, 0, 0, 0, 0, 0]]) {
            assert!(decode_filter(bytes).is_none(), "{} bytes", bytes.len());
        }
    }

    #[test]
    fn malformed_frames_are_refused() {
        for bytes in [
            &[60u8, 0, 0, 0, 0, 0, 0, 0][..],
            &[Kind::Listener as u8, 0, 0, 0, 0, 0, 0, 255],
            &[0; 7],
            &[0; 9],
            &[Kind::Failed as u8, 99, 0, 0, 0, 0, 0, 0],
            &[Kind::Failed as u8, 0, 0],
        ] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
