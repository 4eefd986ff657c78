//! Mounts that come from outside the container: CRIU keeps their names only and gets their sources again at restore.
//!
//! The rootfs is hostile here as everywhere: names of mount points are what the kernel says of a descriptor that was
//! opened inside the root, never joined text. Called by `cmd::checkpoint` and `cmd::restore`.

use crate::cgroup;
use crate::init::{CgroupView, path, root};
use crate::plan::mounts::{Kind, Mount};
use crate::plan::namespaces::Namespaces;
use crate::sys::process::{self, Cloned, Ended};
use crate::sys::{Errno, Result as SysResult, fs, mount};
use anyhow::{Context, Result, bail};
use nix::sys::stat::fstat;
use std::ffi::{CStr, CString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Where a mount is, and its name or source.
type External = (Vec<u8>, Vec<u8>);

/// Dump: each external mount by the name of its mount point. Masks on files are all called `/dev/null`.
pub fn to_dump(
    mounts: &[Mount],
    masks: &[CString],
    cgroups: &[(CString, CString)],
    pid: i32,
) -> Result<Vec<External>> {
    let root = fs::open(&CString::new(format!("/proc/{pid}/root"))?, libc::O_PATH | libc::O_DIRECTORY, 0)
        .context("open the container's root")?;
    let mut all = Vec::new();
    for entry in mounts {
        let Kind::Bind(bind) = &entry.kind else { continue };
        if bind.idmap.is_some() {
            // It would come back with the owners of its source.
            bail!("/mounts/{}: CRIU cannot restore an idmapped mount", entry.index);
        }
        let name = match path::open(root.as_fd(), &entry.destination).and_then(|at| name_of(at.as_fd())) {
            Ok(name) => name,
            // Covered or removed by the container itself: CRIU finds it by its text or does not need it.
            Err(Errno::ENOENT | Errno::ENOTDIR) => entry.destination.to_bytes().to_vec(),
            Err(errno) => return Err(errno).with_context(|| format!("/mounts/{}/destination", entry.index)),
        };
        all.push((name.clone(), name));
    }
    all.extend(cgroups.iter().map(|(at, _)| (at.to_bytes().to_vec(), at.to_bytes().to_vec())));
    for mask in masks {
        let Ok(at) = path::open(root.as_fd(), mask) else { continue };
        if fstat(&at).context("look at a masked path")?.st_mode & libc::S_IFMT != libc::S_IFDIR {
            all.push((name_of(at.as_fd()).context("look at a masked path")?, b"/dev/null".to_vec()));
        }
    }
    Ok(all)
}

/// The mounts of cgroup v1 without a namespace of its own: where each hierarchy is shown, and what is shown.
pub fn cgroup_binds(
    mounts: &[Mount],
    namespaces: &Namespaces,
    record: &cgroup::Record,
) -> Result<Vec<(CString, CString)>> {
    let mut all = Vec::new();
    if namespaces.private(libc::CLONE_NEWCGROUP) {
        return Ok(all);
    }
    let CgroupView::Hierarchies(list) = record.view()? else { return Ok(all) };
    for entry in mounts.iter().filter(|entry| matches!(entry.kind, Kind::Cgroup { .. })) {
        for one in &list {
            let at = [entry.destination.to_bytes(), b"/", one.name.to_bytes()].concat();
            all.push((CString::new(at)?, one.source.clone()));
        }
    }
    Ok(all)
}

/// What the kernel calls the place behind a descriptor: a path in the mount namespace of that place.
fn name_of(at: BorrowedFd) -> SysResult<Vec<u8>> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", at.as_raw_fd()));
    match link {
        Ok(path) => Ok(path.into_os_string().into_encoded_bytes()),
        Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))),
    }
}

/// One line of the report that the mounting process sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// The bind mount at this index of the plan is at this place.
    Place(usize, Vec<u8>),
    /// This step failed; without an index before any mount.
    Failed { step: u8, index: Option<usize>, errno: i32 },
}

/// The steps, for errors.
const STEPS: [&str; 4] = ["prepare the root", "open the source", "make the mount point", "mount"];

/// Restore: makes the mount points that the rootfs lacks, as a start of the container would, and returns each bind mount's
/// place in the root and its source.
///
/// A process in a mount namespace of its own mounts everything in order, because a mount point may lie in another
/// mount. What it mounts goes with it; what it has made in the rootfs and in sources stays.
pub fn to_restore(rootfs: &CStr, mounts: &[Mount]) -> Result<Vec<External>> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("make a pipe")?;
    let pid = match process::clone3(0, None).context("fork")? {
        Cloned::Parent(pid, _) => pid,
        Cloned::Child => {
            drop(read);
            let mut report = Vec::new();
            if let Err(failed) = mount_all(rootfs, mounts, &mut report) {
                write_line(&mut report, &failed);
            }
            let sent = std::fs::File::from(write).write_all(&report);
            process::exit_now(i32::from(sent.is_err()))
        }
    };
    drop(write);
    let mut report = Vec::new();
    let copied = std::fs::File::from(read).read_to_end(&mut report);
    let ended = process::wait(pid).context("wait for the mounts")?;
    copied.context("read the report of the mounts")?;
    if ended != Ended::Code(0) {
        bail!("prepare the mount points: ended without a word");
    }
    let mut rest = &report[..];
    let mut all = Vec::new();
    while !rest.is_empty() {
        match read_line(&mut rest).context("read the report of the mounts")? {
            Line::Place(index, place) => {
                if let Some(Mount { kind: Kind::Bind(bind), .. }) = mounts.get(index) {
                    all.push((place, bind.source.to_bytes().to_vec()));
                }
            }
            Line::Failed { step, index, errno } => {
                let step = STEPS.get(step as usize).copied().unwrap_or_default();
                return Err(Errno::from_raw(errno)).with_context(|| {
                    match index.and_then(|index| mounts.get(index)) {
                        Some(m) => {
                            format!("/mounts/{}: {step}: {}", m.index, m.destination.to_string_lossy())
                        }
                        None => step.to_owned(),
                    }
                });
            }
        }
    }
    Ok(all)
}

fn mount_all(rootfs: &CStr, mounts: &[Mount], report: &mut Vec<u8>) -> Result<(), Line> {
    let at =
        |step, index: Option<usize>| move |errno: Errno| Line::Failed { step, index, errno: errno as i32 };
    process::unshare(libc::CLONE_NEWNS).map_err(at(0, None))?;
    mount::mount(None, c"/", None, libc::MS_SLAVE | libc::MS_REC, None).map_err(at(0, None))?;
    let root = root::bind(rootfs, libc::MS_PRIVATE).map_err(at(0, None))?;
    let prefix = name_of(root.as_fd()).map_err(at(0, None))?;
    for (index, entry) in mounts.iter().enumerate() {
        let failed = |step| at(step, Some(index));
        let (tree, directory) = match &entry.kind {
            Kind::Remount(_) => continue,
            Kind::Bind(bind) => {
                let tree = mount::clone_tree(nix::fcntl::AT_FDCWD, &bind.source, bind.recursive);
                let tree = tree.map_err(failed(1))?;
                let kind = fstat(&tree).map_err(failed(1))?.st_mode & libc::S_IFMT;
                (tree, kind == libc::S_IFDIR)
            }
            // Mount points in it come back with its content: here it only keeps them out of the rootfs.
            Kind::Filesystem(_) | Kind::Cgroup { .. } => (empty().map_err(failed(1))?, true),
        };
        let place = match directory {
            true => path::make_dir(root.as_fd(), &entry.destination).map(|(place, _)| place),
            false => path::make_file(root.as_fd(), &entry.destination),
        }
        .map_err(failed(2))?;
        if matches!(entry.kind, Kind::Bind(_)) {
            let name = name_of(place.as_fd()).map_err(failed(2))?;
            let inside = name.strip_prefix(&prefix[..]).unwrap_or(&name).to_vec();
            write_line(report, &Line::Place(index, inside));
        }
        mount::attach(tree.as_fd(), place.as_fd()).map_err(failed(3))?;
    }
    Ok(())
}

fn empty() -> SysResult<OwnedFd> {
    let context = mount::fs_open(c"tmpfs")?;
    mount::fs_mount(context.as_fd(), 0)
}

/// A kind, the index, a length, and what belongs to the kind: a path, or the step and errno.
fn write_line(report: &mut Vec<u8>, line: &Line) {
    let none = u32::MAX;
    let (kind, index, content) = match line {
        Line::Place(index, place) => (0, *index as u32, place.clone()),
        Line::Failed { step, index, errno } => {
            let index = index.map_or(none, |index| index as u32);
            (1, index, [&[*step][..], &errno.to_le_bytes()].concat())
        }
    };
    report.push(kind);
    report.extend_from_slice(&index.to_le_bytes());
    report.extend_from_slice(&(content.len() as u32).to_le_bytes());
    report.extend_from_slice(&content);
}

/// Takes the first line off such a report; nothing when it is malformed.
pub fn read_line(rest: &mut &[u8]) -> Option<Line> {
    let (&kind, after) = rest.split_first()?;
    let (index, after) = after.split_first_chunk::<4>()?;
    let (length, after) = after.split_first_chunk::<4>()?;
    let (content, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    let index =
        Some(u32::from_le_bytes(*index)).filter(|&index| index != u32::MAX).map(|index| index as usize);
    match kind {
        0 => Some(Line::Place(index?, content.to_vec())),
        _ => {
            let (&step, errno) = content.split_first()?;
            Some(Line::Failed { step, index, errno: i32::from_le_bytes(*errno.first_chunk()?) })
        }
    }
}

/// The directory, in the state directory, on which the rootfs is bound for CRIU: it wants a mount point whose parent is
/// not covered.
pub struct Root<'a> {
    parent: BorrowedFd<'a>,
    /// Its path.
    pub path: Vec<u8>,
}

/// Name of that directory.
const ROOT: &CStr = c"criu-root";

impl<'a> Root<'a> {
    /// Binds `rootfs` there.
    pub fn bind(parent: BorrowedFd<'a>, rootfs: &CStr) -> Result<Root<'a>> {
        let what = "bind the root for criu";
        let tree = mount::clone_tree(nix::fcntl::AT_FDCWD, rootfs, true).context(what)?;
        let private = mount::MountAttr { propagation: libc::MS_PRIVATE, ..Default::default() };
        mount::set_attr(tree.as_fd(), &private, false).context(what)?;
        nix::sys::stat::mkdirat(parent, ROOT, nix::sys::stat::Mode::S_IRWXU).context(what)?;
        let mut root = Root { parent, path: Vec::new() };
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let place = fs::openat(parent, ROOT, flags, 0).context(what)?;
        root.path = name_of(place.as_fd()).context(what)?;
        mount::attach(tree.as_fd(), place.as_fd()).context(what)?;
        Ok(root)
    }
}

impl Drop for Root<'_> {
    fn drop(&mut self) {
        // What stays is taken away with the state directory.
        let _ = mount::remove_mount_point(self.parent, ROOT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_as_written() {
        let lines = [
            Line::Place(0, b"/a".to_vec()),
            Line::Place(70000, Vec::new()),
            Line::Failed { step: 2, index: Some(1), errno: libc::ENOTDIR },
            Line::Failed { step: 0, index: None, errno: libc::EPERM },
        ];
        let mut report = Vec::new();
        lines.iter().for_each(|line| write_line(&mut report, line));
        let mut rest = &report[..];
        for line in &lines {
            assert_eq!(read_line(&mut rest).as_ref(), Some(line));
        }
        assert!(rest.is_empty());
        assert_eq!(read_line(&mut &report[..8]), None);
    }
}
