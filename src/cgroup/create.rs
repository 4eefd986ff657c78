//! Making the container's cgroup, and what the runtime does with it until the init process is in it.

use super::apply::{self, Directories};
use super::enter::{open_procs, open_tasks};
use super::record::{Hierarchy, Record};
use super::resources::Write;
use super::systemd::Unit;
use super::{Options, Plan, Version, file};
use crate::init::{self, CgroupView};
use crate::sys::{Errno, bpf, words};
use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::AtFlags;
use nix::unistd::{Uid, fchownat};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How often a cgroup whose parent vanishes under our hands (another container's delete) is begun anew.
const MAKE_TRIES: u32 = 8;
/// Programs that a cgroup can have attached.
const MAX_PROGRAMS: usize = 64;
/// The list of files that a cgroup's owner may write (Linux 4.15), and what it has been before.
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
const DELEGATE_FILES: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// A container's cgroup that the init process is about to enter.
pub struct Live {
    record: Record,
    /// The cgroup2 directory.
    unified: OnceCell<OwnedFd>,
    devices: Devices,
    /// The systemd driver: what is made once there is a process.
    pending: Option<RefCell<Plan>>,
}

/// The eBPF program to attach.
struct Devices {
    program: Vec<bpf::Insn>,
    /// The cgroup was there before and may have programs.
    replace: bool,
    options: Options<'static>,
    only_allows: bool,
}

/// Directories that were made, parents first; removed again unless taken over by a [`Record`].
#[derive(Default)]
struct Made(Vec<String>);

impl Drop for Made {
    fn drop(&mut self) {
        for dir in self.0.iter().rev() {
            // The error that led here is the one to tell; a parent that others use by now is not ours to remove.
            let _ = file::remove_dir(file::ABSOLUTE, dir);
        }
    }
}

impl Made {
    /// Makes the directory and what is missing above it; false if it was there.
    fn make(&mut self, hierarchy: &Hierarchy) -> file::Result<bool> {
        let dir = hierarchy.dir();
        for _ in 0..MAKE_TRIES {
            match file::make_dir(&dir) {
                Ok(()) => {
                    self.0.push(dir);
                    return Ok(true);
                }
                Err(Errno::EEXIST) => return Ok(false),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
            for parent in parents(hierarchy).skip(1) {
                match file::make_dir(&parent) {
                    Ok(()) => self.0.push(parent),
                    Err(Errno::EEXIST) => {}
                    Err(Errno::ENOENT) => break,
                    Err(errno) => return Err(errno),
                }
            }
        }
        Err(Errno::ENOENT)
    }
}

/// The directories above the container's, from the mount point down.
fn parents(hierarchy: &Hierarchy) -> impl Iterator<Item = String> + '_ {
    let ends = hierarchy.path.match_indices('/').map(|(end, _)| end);
    std::iter::once(hierarchy.mount.clone())
        .chain(ends.map(|end| format!("{}/{}", hierarchy.mount, &hierarchy.path[..end])))
}

/// The directories of a container, opened when a value is to be written there.
pub struct Open<'a> {
    record: &'a Record,
    /// By path; on v1 one hierarchy may have several controllers.
    dirs: HashMap<String, OwnedFd>,
}

impl<'a> Open<'a> {
    /// Opens the directories that these writes need. Errors are left to the write, which has a field to name.
    pub fn new(record: &'a Record, writes: &[Write]) -> Open<'a> {
        let mut dirs = HashMap::new();
        for hierarchy in writes.iter().filter_map(|write| record.hierarchy(&write.controller)) {
            let dir = hierarchy.dir();
            if !dirs.contains_key(&dir)
                && let Ok(open) = file::open_dir(file::ABSOLUTE, &dir)
            {
                dirs.insert(dir, open);
            }
        }
        Open { record, dirs }
    }
}

impl Directories for Open<'_> {
    fn of(&self, controller: &str) -> Option<BorrowedFd<'_>> {
        self.dirs.get(&self.record.hierarchy(controller)?.dir()).map(AsFd::as_fd)
    }

    fn path(&self, controller: &str) -> String {
        self.record.hierarchy(controller).map_or_else(String::new, Hierarchy::dir)
    }
}

impl Plan {
    /// Makes the cgroup and writes its limits, and on v1 its device rules. On an error nothing that it made is left.
    /// With the systemd driver that is left to [`Live::start_unit`].
    pub fn create(self) -> Result<Live> {
        if self.unit.is_some() {
            check_unused(&self.record)?;
            let live = self.live(self.record(), None, false, Made::default());
            return Ok(Live { pending: Some(RefCell::new(self)), ..live });
        }
        match self.record.version {
            Version::V2 => self.create_v2(),
            Version::V1 | Version::Hybrid => self.create_v1(),
        }
    }

    fn live(&self, mut record: Record, unified: Option<OwnedFd>, replace: bool, mut made: Made) -> Live {
        record.made = std::mem::take(&mut made.0);
        record.made.retain(|made| record.hierarchies.iter().all(|one| one.dir() != *made));
        let devices = Devices {
            program: self.program.clone(),
            replace,
            options: self.options,
            only_allows: self.devices.only_allows,
        };
        Live { record, unified: unified.map(OnceCell::from).unwrap_or_default(), devices, pending: None }
    }

    /// May the container go without this hierarchy?
    fn can_do_without(&self, errno: Errno) -> bool {
        matches!(errno, Errno::EACCES | Errno::EPERM | Errno::EROFS)
            && !self.explicit_path
            && self.options.rootless()
    }

    fn create_v2(&self) -> Result<Live> {
        let hierarchy = self.record.main()?;
        let dir = hierarchy.dir();
        let fail = |errno: Errno| anyhow!("make cgroup {dir}: {}", words(errno));
        let mut made = Made::default();
        let fresh = match made.make(hierarchy) {
            Ok(fresh) => fresh,
            Err(errno) if self.can_do_without(errno) && self.writes.is_empty() => {
                let record = Record { hierarchies: Vec::new(), ..self.record() };
                return Ok(self.live(record, None, false, made));
            }
            Err(errno) if self.can_do_without(errno) => {
                return Err(fail(errno)).context(
                    "rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
                );
            }
            Err(errno) => return Err(fail(errno)),
        };
        if !fresh {
            check_unused(&self.record)?;
        }
        let open = self.fill_v2(hierarchy)?;
        Ok(self.live(self.record(), Some(open), !fresh, made))
    }

    /// Controllers, limits and owner of a directory that is there.
    fn fill_v2(&self, hierarchy: &Hierarchy) -> Result<OwnedFd> {
        let dir = hierarchy.dir();
        let open = file::open_dir(file::ABSOLUTE, &dir)
            .map_err(|errno| anyhow!("make cgroup {dir}: {}", words(errno)))?;
        hand_down_controllers(hierarchy, open.as_fd(), &self.writes)?;
        apply::apply(&One { dir: open.as_fd(), path: &dir }, &self.writes)?;
        if let Some(owner) = self.options.owner {
            give_to(open.as_fd(), owner).with_context(|| format!("give cgroup {dir} to user {owner}"))?;
        }
        Ok(open)
    }

    fn create_v1(&self) -> Result<Live> {
        let mut made = Made::default();
        let mut record = Record { hierarchies: Vec::new(), ..self.record() };
        let mut unified = None;
        for hierarchy in &self.record.hierarchies {
            let dir = hierarchy.dir();
            let fresh = match made.make(hierarchy) {
                Ok(fresh) => fresh,
                // A limit that needs it will say so.
                Err(errno) if self.can_do_without(errno) => continue,
                Err(errno) => bail!("make cgroup {dir}: {}", words(errno)),
            };
            if !fresh {
                check_unused(&Record { hierarchies: vec![hierarchy.clone()], ..self.record() })?;
            }
            if hierarchy.has("cpuset") {
                fill_cpuset(hierarchy)?;
            }
            if hierarchy.has("devices") {
                match self.write_device_rules(&dir) {
                    Err(_) if self.options.rootless() => {}
                    other => other?,
                }
            }
            if hierarchy.is_unified() {
                let open = file::open_dir(file::ABSOLUTE, &dir);
                unified = Some(open.map_err(|errno| anyhow!("open cgroup {dir}: {}", words(errno)))?);
            }
            record.hierarchies.push(hierarchy.clone());
        }
        apply::apply(&Open::new(&record, &self.writes), &self.writes)?;
        Ok(self.live(record, unified, false, made))
    }

    /// The systemd driver: the rest of what [`Plan::create`] does, around a process that systemd has moved already where
    /// it knows of a hierarchy.
    fn fill_unit(&self, pid: i32) -> Result<Option<OwnedFd>> {
        let mut made = Made::default();
        let mut unified = None;
        let moved = |one: &Hierarchy| {
            let by_systemd = one.is_unified() || one.has("name=systemd");
            by_systemd && !self.record.unit.as_ref().is_some_and(Unit::is_slice)
        };
        for hierarchy in &self.record.hierarchies {
            let dir = hierarchy.dir();
            made.make(hierarchy).map_err(|errno| anyhow!("make cgroup {dir}: {}", words(errno)))?;
            if self.record.version == Version::V2 {
                unified = Some(self.fill_v2(hierarchy)?);
            } else if hierarchy.is_unified() {
                let open = file::open_dir(file::ABSOLUTE, &dir);
                unified = Some(open.map_err(|errno| anyhow!("open cgroup {dir}: {}", words(errno)))?);
            }
            if hierarchy.has("cpuset") && self.record.version != Version::V2 {
                fill_cpuset(hierarchy)?;
            }
            if hierarchy.has("devices") {
                self.write_device_rules(&dir)?;
            }
        }
        if self.record.version != Version::V2 {
            apply::apply(&Open::new(&self.record, &self.writes), &self.writes)?;
        }
        for hierarchy in self.record.hierarchies.iter().filter(|one| !moved(one)) {
            let path = format!("{}/cgroup.procs", hierarchy.dir());
            file::write_value(file::ABSOLUTE, &path, &pid.to_string())
                .map_err(|errno| anyhow!("write {pid} to {path}: {}", words(errno)))?;
        }
        // From here on it is all the record's, which has each of them.
        made.0.clear();
        Ok(unified)
    }

    fn write_device_rules(&self, dir: &str) -> Result<()> {
        let mut open: Option<(&str, OwnedFd)> = None;
        for (name, line) in self.devices.v1_lines() {
            let fail =
                |errno| anyhow!("/linux/resources/devices: write {line:?} to {dir}/{name}: {}", words(errno));
            let file = match &open {
                Some((opened, file)) if *opened == name => file,
                _ => {
                    let file = file::open_write(file::ABSOLUTE, &format!("{dir}/{name}")).map_err(fail)?;
                    &open.insert((name, file)).1
                }
            };
            file::write_to(file.as_fd(), &line).map_err(fail)?;
        }
        Ok(())
    }
}

/// The directory of v2, where all writes go.
struct One<'a> {
    dir: BorrowedFd<'a>,
    path: &'a str,
}

impl Directories for One<'_> {
    fn of(&self, _: &str) -> Option<BorrowedFd<'_>> {
        Some(self.dir)
    }

    fn path(&self, _: &str) -> String {
        self.path.to_string()
    }
}

/// A cgroup that was there before must be empty, and its processes must run.
fn check_unused(record: &Record) -> Result<()> {
    let count = record.procs()?.len();
    if count != 0 {
        bail!("container's cgroup is not empty: {count} process(es) found");
    }
    if record.is_frozen()? {
        bail!("container's cgroup unexpectedly frozen");
    }
    Ok(())
}

/// Hands every controller of the host down to the container, like runc: engines read its usage, and some set limits,
/// through them even if the configuration has none. Mostly they have been handed down to the parent before.
fn hand_down_controllers(hierarchy: &Hierarchy, dir: BorrowedFd, writes: &[Write]) -> Result<()> {
    let path = hierarchy.dir();
    let list = |dir: BorrowedFd, path: &str| {
        file::read_value(dir, path).map_err(|errno| anyhow!("read {path}: {}", words(errno)))
    };
    let all = list(file::ABSOLUTE, &format!("{}/cgroup.controllers", hierarchy.mount))?;
    if list(dir, "cgroup.controllers").with_context(|| format!("cgroup {path}"))? == all {
        return Ok(());
    }
    for (level, parent) in parents(hierarchy).enumerate() {
        if level > 0 {
            check_type(&parent, writes)?;
        }
        hand_down(&parent);
    }
    check_type(&path, writes)
}

/// Adds to `cgroup.subtree_control` what is available and missing. What cannot be handed down is told by the limit that
/// needs it, and by no other.
fn hand_down(dir: &str) {
    let read = |name: &str| file::read_value(file::ABSOLUTE, &format!("{dir}/{name}")).unwrap_or_default();
    let (available, enabled) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
    let missing: Vec<String> = available
        .split(' ')
        .filter(|name| !name.is_empty() && !enabled.split(' ').any(|have| have == *name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return;
    }
    let path = format!("{dir}/cgroup.subtree_control");
    if file::write_value(file::ABSOLUTE, &path, &missing.join(" ")).is_err() && missing.len() > 1 {
        for one in missing {
            let _ = file::write_value(file::ABSOLUTE, &path, &one);
        }
    }
}

/// Below a threaded cgroup, or one with processes and threaded children, a cgroup is "domain invalid" until it is made
/// threaded too, and then has none of the controllers that account for whole processes.
fn check_type(dir: &str, writes: &[Write]) -> Result<()> {
    let path = format!("{dir}/cgroup.type");
    let state = match file::read_value(file::ABSOLUTE, &path).as_deref() {
        Ok("domain invalid") => "an invalid state",
        Ok("threaded") => "threaded mode",
        Ok("domain threaded") => "domain threaded mode",
        _ => return Ok(()),
    };
    let domain = |write: &&Write| matches!(&*write.controller, "memory" | "io" | "cpu" | "hugetlb");
    if let Some(write) = writes.iter().find(domain) {
        bail!(
            "/linux/resources/{}: cannot enter cgroupv2 {dir:?} with domain controllers -- it is in {state}",
            write.field
        );
    }
    if state == "an invalid state" {
        // If it stays invalid, entering it fails with the kernel's reason.
        let _ = file::write_value(file::ABSOLUTE, &path, "threaded");
    }
    Ok(())
}

fn give_to(dir: BorrowedFd, owner: u32) -> Result<()> {
    let chown = |name: &str, flag| fchownat(dir, name, Some(Uid::from_raw(owner)), None, flag);
    chown("", AtFlags::AT_EMPTY_PATH).map_err(|errno| anyhow!("{}", words(errno)))?;
    let files = file::read_all(file::ABSOLUTE, DELEGATE).unwrap_or_else(|_| DELEGATE_FILES.into());
    for name in files.lines().filter(|name| !name.is_empty() && !name.contains('/')) {
        match chown(name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // The list is what the kernel knows; this cgroup has the files of its controllers.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => bail!("{name}: {}", words(errno)),
        }
    }
    Ok(())
}

/// A v1 cpuset takes no process before it has CPUs and memory nodes, and a new one has none: copies what is missing
/// down from the nearest ancestor that has some. A configured set replaces the container's own later.
pub fn fill_cpuset(hierarchy: &Hierarchy) -> Result<()> {
    for name in ["cpus", "mems"] {
        let mut prefix = "cpuset.";
        let mut empty = vec![hierarchy.dir()];
        let mut above: Vec<String> = parents(hierarchy).collect();
        let value = loop {
            let Some(dir) = above.pop() else {
                bail!("cgroup {}: no ancestor has a value in cpuset.{name}", hierarchy.dir());
            };
            let mut value = file::read_value(file::ABSOLUTE, &format!("{dir}/{prefix}{name}"));
            if value == Err(Errno::ENOENT) {
                // The hierarchy may be mounted with `noprefix`.
                prefix = "";
                value = file::read_value(file::ABSOLUTE, &format!("{dir}/{name}"));
            }
            match value {
                Ok(value) if value.is_empty() => empty.push(dir),
                Ok(value) => break value,
                Err(errno) => bail!("read {dir}/{prefix}{name}: {}", words(errno)),
            }
        };
        for dir in empty.iter().rev() {
            let path = format!("{dir}/{prefix}{name}");
            file::write_value(file::ABSOLUTE, &path, &value)
                .map_err(|errno| anyhow!("write {value:?} to {path}: {}", words(errno)))?;
        }
    }
    Ok(())
}

impl Live {
    /// What really was made, which for a rootless container may be less than planned. Until it has been stored and
    /// loaded again, its `remove` also removes the parents that were made.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The cgroup2 directory, for `CLONE_INTO_CGROUP`; the hybrid has one as well. None with the systemd driver, which
    /// moves the process.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        if self.is_pending() { None } else { self.unified() }
    }

    fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.get().map(AsFd::as_fd)
    }

    /// The systemd driver: the init stage waits until [`Live::start_unit`] and [`Live::fill_unit`] are done.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Has systemd make the unit around the init process. On an error there is none; else it is the record's to remove.
    pub fn start_unit(&self, pid: i32) -> Result<()> {
        let mut plan = self.pending.as_ref().context("the cgroup is there")?.borrow_mut();
        plan.unit.as_mut().context("no unit is wanted")?.start(pid)
    }

    /// Writes limits and device rules to the unit's cgroup, and moves the process where systemd has not.
    pub fn fill_unit(&self, pid: i32) -> Result<()> {
        let plan = self.pending.as_ref().context("the cgroup is there")?.borrow();
        if let Some(unified) = plan.fill_unit(pid)? {
            // Once only: there is one attempt.
            let _ = self.unified.set(unified);
        }
        Ok(())
    }

    /// Files to which the child writes `0` as its first act, while it is a single thread. With `into` false also that of
    /// the cgroup2 tree, for a child that was not cloned into it.
    pub fn join_files(&self, into: bool) -> Result<Vec<OwnedFd>> {
        let v1 = self.record.hierarchies.iter().filter(|one| !one.is_unified() && !self.is_pending());
        let mut files = v1.map(|one| open_tasks(&one.dir())).collect::<Result<Vec<_>>>()?;
        if let Some(unified) = self.clone_into().filter(|_| !into) {
            files.push(open_procs(unified).map_err(|errno| anyhow!("open cgroup.procs: {}", words(errno)))?);
        }
        Ok(files)
    }

    /// v2: loads and attaches the device program. May be called while the child is at work already, but before it runs
    /// anything of the container's. Does nothing on v1.
    pub fn load_devices(&self) -> Result<()> {
        let Some(cgroup) = self.unified().filter(|_| !self.devices.program.is_empty()) else {
            return Ok(());
        };
        match self.devices.attach(cgroup) {
            Ok(()) => Ok(()),
            Err(_) if self.devices.options.rootless() => Ok(()),
            // Privilege over devices is out of reach for a user namespace, mostly that over BPF as well; and without the
            // program nothing is denied that the configuration grants.
            Err(Errno::EPERM) if self.devices.only_allows || super::in_user_namespace() => Ok(()),
            Err(errno) => bail!("/linux/resources/devices: load the device program: {}", words(errno)),
        }
    }

    /// The container's cgroups as its `cgroup` mount shows them.
    pub fn view(&self) -> Result<CgroupView> {
        self.record.view()
    }

    /// Has the OOM killer ended a process of this cgroup?
    pub fn was_oom_killed(&self) -> bool {
        self.record.oom_kills() > 0
    }
}

impl Devices {
    fn attach(&self, cgroup: BorrowedFd) -> file::Result<()> {
        let program = bpf::load_device_program(&self.program)?;
        let mut ids = [0; MAX_PROGRAMS];
        let count = if self.replace { bpf::query_device_programs(cgroup, &mut ids)? } else { 0 };
        let mut old = Vec::new();
        for &id in &ids[..count] {
            match bpf::open_program(id) {
                Ok(program) => old.push(program),
                // Another's that a security module hides from us; it can only deny more.
                Err(Errno::EPERM | Errno::EACCES | Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        if let [one] = &old[..] {
            let flags = bpf::F_ALLOW_MULTI | bpf::F_REPLACE;
            return bpf::attach_device_program(cgroup, program.as_fd(), flags, Some(one.as_fd()));
        }
        // All of them must agree to an access, so the new one is in force before the old ones go.
        bpf::attach_device_program(cgroup, program.as_fd(), bpf::F_ALLOW_MULTI, None)?;
        old.iter().try_for_each(|one| bpf::detach_device_program(cgroup, one.as_fd()))
    }
}

impl Record {
    /// How a `cgroup` mount shows the container's cgroups.
    pub fn view(&self) -> Result<CgroupView> {
        let text = |text: String| CString::new(text).context("a cgroup path has a NUL byte");
        if self.version == Version::V2 {
            // A container without a cgroup sees the whole tree, like any process outside a cgroup namespace.
            let own = self.hierarchies.first().map_or_else(|| file::ROOT.to_string(), Hierarchy::dir);
            return Ok(CgroupView::Unified { own: text(own)? });
        }
        let mut all = Vec::new();
        // A container without a cgroup is in the runtime's.
        let own =
            if self.hierarchies.is_empty() { super::own_hierarchies(self.version)? } else { Vec::new() };
        for one in self.hierarchies.iter().chain(&own).filter(|one| !one.is_unified()) {
            let name = one.mount.rsplit('/').next().unwrap_or_default();
            let links = one.controllers.split(',').filter(|link| *link != name && !link.starts_with("name="));
            all.push(init::Hierarchy {
                name: text(name.into())?,
                controllers: text(one.controllers.clone())?,
                source: text(one.dir())?,
                links: links.map(|link| text(link.into())).collect::<Result<_>>()?,
            });
        }
        Ok(CgroupView::Hierarchies(all))
    }
}
