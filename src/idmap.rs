//! The maps of a user namespace, seen and written from outside of it by the runtime.
//!
//! The kernel takes each map once, from a process in the parent namespace that has the right to the ids (or that maps
//! only its own); whoever has not asks newuidmap and newgidmap, which know what `/etc/subuid` grants.

use crate::plan::Plan;
use crate::plan::ids::{self, Maps, Range};
use crate::sync::{Kind, Wire};
use crate::sys::process::{self, Cloned};
use crate::sys::{Errno, fs, words};
use anyhow::{Context, Result, anyhow, bail};
use oci_spec::runtime::Process;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

/// Writes both maps of the process `pid`, which is in a new user namespace and does nothing yet.
pub fn write(pid: i32, maps: &Maps) -> Result<()> {
    if !process::is_root() && maps_own_group_alone(maps) {
        // Without this an ordinary user could give up a group that a file's permissions are against (Linux 3.19).
        put(pid, "setgroups", "deny").context("/linux/gidMappings: deny setgroups")?;
    }
    write_one(pid, "uid_map", &maps.uids, "newuidmap").context("/linux/uidMappings")?;
    write_one(pid, "gid_map", &maps.gids, "newgidmap").context("/linux/gidMappings")
}

/// The one map of groups that needs neither privileges nor newgidmap.
fn maps_own_group_alone(maps: &Maps) -> bool {
    let own = nix::unistd::getegid().as_raw();
    maps.gids == [Range { inside: 0, outside: own, count: 1 }]
}

fn write_one(pid: i32, file: &str, map: &[Range], tool: &str) -> Result<()> {
    match put(pid, file, &ids::text(map)) {
        Err(Errno::EPERM) if !process::is_root() => run_tool(pid, map, tool),
        other => other.with_context(|| format!("write {file}")),
    }
}

/// Writes a file of the process `pid`.
pub fn put(pid: i32, file: &str, text: &str) -> crate::sys::Result<()> {
    let path = CString::new(format!("/proc/{pid}/{file}")).map_err(|_| Errno::EINVAL)?;
    let file = fs::open(&path, libc::O_WRONLY, 0)?;
    fs::write_once(file.as_fd(), text.as_bytes())
}

/// newuidmap(1), newgidmap(1): by absolute path and without an environment, because they are setuid.
fn run_tool(pid: i32, map: &[Range], tool: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(tool)).find(|path| {
        let c_path = CString::new(path.as_os_str().as_bytes());
        path.is_absolute() && c_path.is_ok_and(|path| fs::may_execute(&path).is_ok())
    });
    let Some(found) = found else {
        bail!("these ids are not all the caller's own, and {tool} is not in $PATH: mapping tool not present");
    };
    let numbers = map.iter().flat_map(|range| [range.inside, range.outside, range.count]);
    let output = Command::new(&found)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", found.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim_end().replace('\n', " ");
        bail!("failed to use {tool}: {} ({said})", output.status);
    }
    Ok(())
}

/// Takes the maps of the user namespace `file` that is joined over into the plan. Maps in the configuration must be the
/// same (containerd and CRI-O send both).
pub fn adopt(plan: &mut Plan, file: BorrowedFd, index: usize, process: &Process) -> Result<()> {
    let maps = of_namespace(file)
        .with_context(|| format!("/linux/namespaces/{index}/path: look into the user namespace"))?;
    if !plan.maps.is_empty() && !plan.maps.same_as(&maps) {
        let field = if plan.maps.uids.is_empty() { "gidMappings" } else { "uidMappings" };
        bail!(
            "/linux/{field}: user namespaces enabled, but both namespace path and non-matching mapping specified -- \
             you may only provide one"
        );
    }
    maps.check_users(process).with_context(|| format!("/linux/namespaces/{index}/path"))?;
    plan.maps = maps;
    Ok(())
}

/// How long the entry into a user namespace may take, in seconds.
const ENTER_LIMIT: u32 = 10;

/// The maps of a user namespace: only a process in it shows them, so one enters it for as long as that takes.
fn of_namespace(file: BorrowedFd) -> Result<Maps> {
    let (ours, theirs) = Wire::pair().context("make a wire")?;
    let (pid, pidfd) = match process::fork().context("fork")? {
        Cloned::Child => {
            drop(ours);
            // Its end says that it failed; it has nobody else to tell.
            let entered = process::setns(file, libc::CLONE_NEWUSER).and_then(|()| theirs.send(Kind::Ready));
            if entered.is_ok() {
                let _ = theirs.receive();
            }
            process::exit_now(entered.err().map_or(0, |errno| errno as i32))
        }
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop(theirs);
    // In a pid namespace that is shared, root of that user namespace may stop it.
    ours.limit(ENTER_LIMIT).context("limit the wait for a namespace")?;
    let entered = ours.expect(Kind::Ready);
    let map = |name: &str| -> Result<Vec<Range>> {
        let path = format!("/proc/{pid}/{name}");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        ids::parse(&text).with_context(|| format!("{path} is no map"))
    };
    let maps = match entered {
        Ok(()) => map("uid_map").and_then(|uids| Ok(Maps { uids, gids: map("gid_map")? })),
        Err(_) => Err(anyhow!("join it")),
    };
    drop(ours);
    // It ends by itself now; whatever keeps it, nobody needs it any more.
    process::kill_child(pid, pidfd.as_fd());
    match process::wait(pid) {
        Ok(process::Ended::Code(errno)) if errno != 0 && entered.is_err() => {
            bail!("join the namespace: {}", words(Errno::from_raw(errno)))
        }
        _ => maps,
    }
}
