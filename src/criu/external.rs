//! Namespaces and descriptors of a container that somebody else owns: CRIU leaves them out and is given them again.
//!
//! `descriptors.json` lies in a directory that came from elsewhere: it is read with a bound and believed only where it
//! names a pipe. Called by `cmd::checkpoint` and `cmd::restore`.

use super::message::Options;
use crate::plan::namespaces::{self, Join, Namespaces};
use crate::sys::{Errno, fs, process};
use anyhow::{Context, Result, bail};
use nix::sys::stat::stat;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Keeps what 0, 1 and 2 of the init process were.
const DESCRIPTORS: &str = "descriptors.json";
/// Largest such file that is read, bytes.
const DESCRIPTORS_MAX: u64 = 64 << 10;

/// What CRIU calls a namespace that it does not save, by runc's convention.
fn key(flag: i32) -> Option<&'static str> {
    match flag {
        libc::CLONE_NEWNET => Some("extRootNetNS"),
        libc::CLONE_NEWPID => Some("extRootPidNS"),
        _ => None,
    }
}

/// Dump: the network and the pid namespace that were joined by path stay what they are.
pub fn name_namespaces(namespaces: &Namespaces, options: &mut Options) -> Result<()> {
    for join in &namespaces.join {
        if let Some(key) = key(join.flag) {
            let inode = stat(&join.path).with_context(|| at(join))?.st_ino;
            options.external.push(format!("{}[{inode}]:{key}", namespaces::file(join.flag)));
        }
    }
    Ok(())
}

/// Restore: opens the network and pid namespaces to give to CRIU, and names the others for it to join.
/// The first of the returned descriptors is to have the number `first` in CRIU.
pub fn give_namespaces(namespaces: &Namespaces, first: i32, options: &mut Options) -> Result<Vec<OwnedFd>> {
    let mut files = Vec::new();
    for join in &namespaces.join {
        if let Some(key) = key(join.flag) {
            let path = crate::plan::c_path(&join.path, "path")?;
            // Not blocking: the path may be a fifo.
            let file = fs::open(&path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0)
                .with_context(|| format!("{}: requested namespace does not exist", at(join)))?;
            if process::namespace_type(file.as_fd()) != Ok(join.flag) {
                bail!("{}: is not a {} namespace", at(join), namespaces::file(join.flag));
            }
            options.inherit.push((key.to_owned(), first + files.len() as i32));
            files.push(file);
        } else if join.flag == libc::CLONE_NEWCGROUP {
            bail!("{}: CRIU cannot restore into an existing cgroup namespace", at(join));
        } else {
            options.join.push((namespaces::file(join.flag), join.path.as_os_str().as_bytes().to_owned()));
        }
    }
    Ok(files)
}

fn at(join: &Join) -> String {
    format!("/linux/namespaces/{}/path: {}", join.index, join.path.display())
}

/// Dump: writes down what 0, 1 and 2 of the init process are.
///
/// A restore gives its own descriptor for each one that is a pipe, so a pipe between two processes of the container must
/// not be named: those are found by their other end.
pub fn write_descriptors(pid: i32, others: &[i32], images: &Path) -> Result<()> {
    let mut names = Vec::new();
    for number in 0..3 {
        let name = match std::fs::read_link(format!("/proc/{pid}/fd/{number}")) {
            Ok(target) => target.to_string_lossy().into_owned(),
            // Closed by the program.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("read /proc/{pid}/fd/{number}")),
        };
        names.push(if is_pipe(&name) && has_other_end(&name, pid, number, others) {
            String::new()
        } else {
            name
        });
    }
    let file = images.join(DESCRIPTORS);
    let text = serde_json::to_vec(&names).context("write descriptors")?;
    let mode = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
    let opened = fs::open(&CString::new(file.as_os_str().as_bytes())?, mode, 0o600);
    let written = opened.and_then(|opened| fs::write_once(opened.as_fd(), &text));
    written.with_context(|| format!("write {}", file.display()))
}

/// Restore: the names of those descriptors that CRIU is to get from us, by number.
pub fn read_descriptors(images: &Path) -> Result<Vec<(String, i32)>> {
    let file = images.join(DESCRIPTORS);
    let what = || format!("read {}", file.display());
    let name = CString::new(file.as_os_str().as_bytes())?;
    let opened =
        fs::open(&name, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0).with_context(what)?;
    let mut text = Vec::new();
    std::fs::File::from(opened).take(DESCRIPTORS_MAX + 1).read_to_end(&mut text).with_context(what)?;
    if text.len() as u64 > DESCRIPTORS_MAX {
        bail!("{}: is larger than {DESCRIPTORS_MAX} bytes", what());
    }
    let names: Vec<String> = serde_json::from_slice(&text).with_context(what)?;
    let pipes = (0..3).zip(names).filter(|(_, name)| is_pipe(name));
    Ok(pipes.map(|(number, name)| (name, number)).collect())
}

fn is_pipe(name: &str) -> bool {
    let inode = name.strip_prefix("pipe:[").and_then(|rest| rest.strip_suffix(']'));
    inode.is_some_and(|inode| !inode.is_empty() && inode.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Does a process of the container hold the other end of this pipe?
fn has_other_end(name: &str, pid: i32, number: i32, others: &[i32]) -> bool {
    let access = |pid: i32, number: &str| {
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        Some(i32::from_str_radix(flags.trim(), 8).ok()? & libc::O_ACCMODE)
    };
    let Some(own) = access(pid, &number.to_string()) else { return false };
    others.iter().any(|&other| {
        let Ok(entries) = std::fs::read_dir(format!("/proc/{other}/fd")) else { return false };
        entries.flatten().any(|entry| {
            std::fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == name)
                && entry
                    .file_name()
                    .to_str()
                    .and_then(|number| access(other, number))
                    .is_some_and(|a| a != own)
        })
    })
}

/// Namespaces that CRIU has put the init process in although the configuration lists none.
pub fn added_namespaces(pid: i32) -> i32 {
    let inode = |pid: &str| stat(format!("/proc/{pid}/ns/time").as_str()).map(|stat| stat.st_ino);
    match (inode("self"), inode(&pid.to_string())) {
        (Ok(own), Ok(other)) if own != other => process::CLONE_NEWTIME,
        _ => 0,
    }
}

/// The cgroup of a process in each hierarchy: controller and path. Several controllers in one are told one by one.
pub fn cgroup_roots(pid: i32) -> Result<Vec<(String, String)>> {
    let path = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let entries =
        text.lines().filter_map(|line| line.splitn(3, ':').skip(1).collect::<Vec<_>>().try_into().ok());
    Ok(entries
        .flat_map(|[controllers, path]: [&str; 2]| {
            controllers.split(',').map(move |one| (one.to_owned(), path.to_owned())).collect::<Vec<_>>()
        })
        .collect())
}

/// The init process that CRIU has made.
pub fn restored(pid: i32) -> Result<OwnedFd> {
    match process::pidfd_open(pid) {
        Ok(pidfd) if !process::has_ended(pidfd.as_fd()) => Ok(pidfd),
        Ok(_) | Err(Errno::ESRCH) => bail!("restored process {pid} is gone"),
        Err(errno) => Err(errno).with_context(|| format!("open process {pid}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pipes_are_given() {
        let dir = std::env::temp_dir().join(format!("naru-descriptors-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let read = |text: &str| {
            std::fs::write(dir.join(DESCRIPTORS), text).unwrap();
            read_descriptors(&dir).map_err(|_| ())
        };
        assert_eq!(
            read(r#"["pipe:[12]","/dev/null","pipe:[13]","pipe:[14]"]"#),
            Ok(vec![("pipe:[12]".to_owned(), 0), ("pipe:[13]".to_owned(), 2)])
        );
        assert_eq!(read(r#"["pipe:[]","pipe:[1]x","xpipe:[1]"]"#), Ok(vec![]));
        assert_eq!(read("{}"), Err(()));
        std::fs::remove_file(dir.join(DESCRIPTORS)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join(DESCRIPTORS)).unwrap();
        assert!(read_descriptors(&dir).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_pipe_with_both_ends_inside_is_found() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let own = std::process::id() as i32;
        use std::os::fd::AsRawFd;
        let name = std::fs::read_link(format!("/proc/self/fd/{}", read.as_raw_fd())).unwrap();
        let name = name.to_str().unwrap();
        assert!(has_other_end(name, own, read.as_raw_fd(), &[own]));
        drop(write);
        assert!(!has_other_end(name, own, read.as_raw_fd(), &[own]));
    }
}
