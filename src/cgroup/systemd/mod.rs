//! The systemd driver: the container's cgroup is that of a transient unit.
//!
//! systemd makes a scope around a process that is there already, so the init stage is cloned first and waits until it
//! has been moved (`create`). Limits and device rules are properties of the unit, which systemd keeps in force when it
//! reloads, and are written to the cgroup's files besides. Everything else works on those files like the other driver.

pub mod bus;
pub mod message;
pub mod properties;
pub mod text;
pub mod value;

use super::devices::Policy;
use super::resources::{Limits, is_zero};
use super::{Options, Version, file, path};
use crate::log;
use anyhow::{Context, Result, bail};
pub use bus::is_unanswered;
use bus::{Bus, Whose, is_lost, is_refusal};
use oci_spec::runtime::LinuxResources;
use properties::{Host, Property};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use value::Value;

/// There where systemd is the first process, sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// How long a unit that was ordered over a connection that broke may take to appear.
const LOST_TIMEOUT: Duration = Duration::from_secs(5);
const LOST_PAUSE: Duration = Duration::from_millis(20);
/// What a job that went well ends with.
const DONE: &str = "done";

/// The unit of a container, as kept in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `prefix-name.scope` or `name.slice`.
    pub name: String,
    /// It is one of the user's own systemd.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub user: bool,
}

impl Unit {
    /// A slice has no processes of its own for systemd; its cgroup takes some all the same.
    pub fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    fn whose(&self) -> Whose {
        if self.user { Whose::User } else { Whose::System }
    }

    /// Stops the unit and makes systemd forget it, also if it has failed. Gone already is as good. Where there is no
    /// systemd to be reached nothing is said; one that does not answer ([`is_unanswered`]) may have the unit yet.
    pub fn stop(&self) -> Result<()> {
        let fail = || format!("stop unit {:?}", self.name);
        let mut bus = match Bus::connect(self.whose()) {
            Err(error) if is_unanswered(&error) => return Err(error).with_context(fail),
            Err(_) => return Ok(()),
            Ok(bus) => bus,
        };
        let name = Value::text(&*self.name);
        match bus.job("StopUnit", &[name.clone(), Value::text("replace")]) {
            Ok(result) if result == DONE => {}
            Ok(result) => {
                log::warn(format_args!("error removing unit `{}`: got `{result}`. Continuing...", self.name));
            }
            Err(error) if is_refusal(&error, "NoSuchUnit") || is_lost(&error) => {}
            Err(error) => return Err(error).with_context(fail),
        }
        // Only a failed unit is still known; of any other it says that there is none.
        let _ = bus.call("ResetFailedUnit", &[name]);
        Ok(())
    }

    /// Sets properties until the unit goes.
    pub fn set(&self, bus: &mut Bus, properties: Vec<Property>) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        let arguments = [Value::text(&*self.name), Value::Bool(true), list(properties)];
        bus.call("SetUnitProperties", &arguments).context("unable to set unit properties")?;
        Ok(())
    }

    /// A connection to its systemd, and what that knows.
    pub fn connect(&self, cgroups: Version) -> Result<(Bus, Host)> {
        let mut bus = Bus::connect(self.whose())?;
        let host = host(&mut bus, cgroups)?;
        Ok((bus, host))
    }

    /// Would systemd write device rules anew, on v1 with a moment in which nothing is allowed?
    pub fn has_device_rules(&self, bus: &mut Bus) -> bool {
        let kind = if self.is_slice() { "Slice" } else { "Scope" };
        let interface = format!("org.freedesktop.systemd1.{kind}");
        let path = format!("/org/freedesktop/systemd1/unit/{}", escape(&self.name));
        bus.property(&path, &interface, "DevicePolicy").map_or(true, |policy| policy != "auto")
    }

    /// Moves a process into the unit's cgroup, or one below it.
    pub fn attach(&self, bus: &mut Bus, below: &str, pid: i32) -> Result<()> {
        let below = if below.is_empty() { String::new() } else { format!("/{below}") };
        let pids = Value::Array("u".into(), vec![Value::U32(pid as u32)]);
        let arguments = [Value::text(&*self.name), Value::Text(below), pids];
        bus.call("AttachProcessesToUnit", &arguments)
            .with_context(|| format!("attach process {pid} to unit {:?}", self.name))?;
        Ok(())
    }
}

fn host(bus: &mut Bus, cgroups: Version) -> Result<Host> {
    let text = bus.manager_property("Version").context("ask systemd for its version")?;
    let systemd = properties::systemd_version(&text).with_context(|| format!("systemd version {text:?}"))?;
    Ok(Host { cgroups, systemd })
}

/// The unit's name in a path of D-Bus: everything but letters and digits as hexadecimal.
fn escape(name: &str) -> String {
    let one = |(at, byte): (usize, u8)| match byte {
        b'a'..=b'z' | b'A'..=b'Z' => (byte as char).to_string(),
        b'0'..=b'9' if at > 0 => (byte as char).to_string(),
        other => format!("_{other:02x}"),
    };
    name.bytes().enumerate().map(one).collect()
}

fn list(properties: Vec<Property>) -> Value {
    let one = |(name, value)| Value::Struct(vec![Value::Text(name), Value::Variant(Box::new(value))]);
    Value::Array("(sv)".into(), properties.into_iter().map(one).collect())
}

/// A unit that is to be made.
pub struct Wanted {
    /// Its name.
    pub unit: Unit,
    /// What its properties depend on.
    pub host: Host,
    bus: Bus,
    properties: Vec<Property>,
}

/// Is the user's own systemd meant? In a user namespace, where everybody may be root, the runtime directory tells: that of
/// an ordinary user is there where an engine of such a user has made the namespace.
fn is_users_own(rootless: Option<bool>) -> bool {
    rootless.unwrap_or_else(|| {
        let of_user = || {
            let dir = std::env::var_os("XDG_RUNTIME_DIR")?;
            std::path::Path::new(&dir).file_name()?.to_str()?.parse::<u32>().ok()
        };
        !nix::unistd::geteuid().is_root()
            || (super::in_user_namespace() && of_user().is_some_and(|uid| uid != 0))
    })
}

/// Which unit a configuration asks for, and its path in the hierarchies. Connects to systemd, changes nothing.
pub fn plan(
    cgroups_path: Option<&str>,
    id: &str,
    version: Version,
    options: &Options,
) -> Result<(Wanted, String)> {
    if !std::path::Path::new(BOOTED).is_dir() {
        bail!("systemd not running on this host, cannot use systemd cgroups manager");
    }
    let user = is_users_own(options.rootless);
    if user && version != Version::V2 {
        bail!("cannot use rootless systemd cgroups manager on cgroup v1");
    }
    let name = Name::of(cgroups_path, id, user)?;
    let slice_path = expand_slice(&name.slice)
        .with_context(|| format!("/linux/cgroupsPath: invalid slice name: {}", name.slice))?;
    let unit = Unit { name: name.unit, user };
    let properties = match options.annotations {
        Some(annotations) => text::properties(annotations)?,
        None => Vec::new(),
    };
    let (mut bus, host) = unit.connect(version)?;
    let mut path = path::join(&slice_path, &unit.name);
    if user {
        let own = bus.manager_property("ControlGroup").context("ask systemd for its cgroup")?;
        path = path::join(&path::clean(&own), &path);
    }
    let mut all: Vec<Property> =
        vec![("Description".into(), Value::Text(format!("libcontainer container {}", name.container)))];
    if unit.is_slice() {
        all.push(("Wants".into(), Value::Array("s".into(), vec![Value::Text(name.slice)])));
    } else {
        all.push(("Slice".into(), Value::Text(name.slice)));
        all.push(("Delegate".into(), Value::Bool(true)));
    }
    let io = if version == Version::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    for accounting in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
        all.push((accounting.into(), Value::Bool(true)));
    }
    all.push(("DefaultDependencies".into(), Value::Bool(false)));
    all.extend(properties);
    Ok((Wanted { unit, host, bus, properties: all }, path))
}

impl Wanted {
    /// Adds limits and device rules, which are in force before a process is in the unit.
    pub fn limit(
        &mut self,
        resources: Option<&LinuxResources>,
        limits: &Limits,
        policy: &Policy,
    ) -> Result<()> {
        if let Some(resources) = resources {
            self.properties.extend(properties::oom_policy(resources, self.host));
            self.properties.extend(properties::of_resources(resources, limits, self.host)?);
        }
        let groups = match self.host.knows_device_numbers() {
            true => String::new(),
            // Without it no name is found, which denies more.
            false => file::read_all(file::ABSOLUTE, "/proc/devices").unwrap_or_default(),
        };
        self.properties.extend(properties::of_devices(policy, self.host, &groups));
        Ok(())
    }

    /// Makes the unit around a process. On an error there is none of ours.
    pub fn start(&mut self, pid: i32) -> Result<()> {
        let mut properties = self.properties.clone();
        if !self.unit.is_slice() {
            let pids = Value::Array("u".into(), vec![Value::U32(pid as u32)]);
            properties.push(("PIDs".into(), pids));
        }
        let name = Value::text(&*self.unit.name);
        let auxiliary = Value::Array("(sa(sv))".into(), Vec::new());
        let arguments = [name.clone(), Value::text("replace"), list(properties), auxiliary];
        let mut again = true;
        loop {
            let result = self.bus.job("StartTransientUnit", &arguments);
            match result {
                Ok(result) if result == DONE => return Ok(()),
                Ok(result) => {
                    let _ = self.bus.call("ResetFailedUnit", &[name]);
                    bail!("error creating systemd unit `{}`: got `{result}`", self.unit.name);
                }
                // It may be left from a container that failed: reset, it goes.
                Err(error) if again && is_refusal(&error, "UnitExists") => {
                    let _ = self.bus.call("ResetFailedUnit", std::slice::from_ref(&name));
                }
                Err(error) if again && is_lost(&error) && !self.unit.is_slice() => {
                    if self.appears(pid)? {
                        return Ok(());
                    }
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("unable to start unit {:?}", self.unit.name));
                }
            }
            again = false;
        }
    }

    /// systemd has executed itself anew, or has died, and its answer is lost: is the process in the unit all the same?
    fn appears(&mut self, pid: i32) -> Result<bool> {
        let deadline = Instant::now() + LOST_TIMEOUT;
        loop {
            let connected = self.unit.connect(self.host.cgroups);
            let text = file::read_value(file::ABSOLUTE, &format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let end = format!("/{}", self.unit.name);
            let placed = path::memberships(&text).any(|one| one.path.ends_with(&end));
            match connected {
                Ok((bus, _)) if placed || Instant::now() >= deadline => {
                    self.bus = bus;
                    return Ok(placed);
                }
                Err(error) if Instant::now() >= deadline => return Err(error),
                _ => std::thread::sleep(LOST_PAUSE),
            }
        }
    }
}

/// The parts of `slice:prefix:name`.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    slice: String,
    unit: String,
    container: String,
}

impl Name {
    fn of(cgroups_path: Option<&str>, id: &str, user: bool) -> Result<Name> {
        let (slice, prefix, name) = match cgroups_path {
            None | Some("") => ("", "naru", id),
            Some(path) => match path.split(':').collect::<Vec<_>>()[..] {
                [slice, prefix, name] => (slice, prefix, name),
                _ => bail!(
                    "/linux/cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
                ),
            },
        };
        let slice = match (slice, user) {
            ("", false) => "system.slice",
            ("", true) => "user.slice",
            (slice, _) => slice,
        };
        // UNIT_NAME_MAX of systemd. The path of a slice grows with the square of its name.
        if slice.len() > 255 {
            bail!("/linux/cgroupsPath: the name of the slice is longer than 255 bytes");
        }
        let unit = if name.ends_with(".slice") { name.into() } else { format!("{prefix}-{name}.scope") };
        if unit.contains('/') || unit.contains('\0') {
            bail!("/linux/cgroupsPath: {unit:?} is not the name of a unit");
        }
        Ok(Name { slice: slice.into(), unit, container: name.into() })
    }
}

/// `a-b.slice` stands below `a.slice`: the path of a slice in a hierarchy. None: not a slice's name.
fn expand_slice(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice").filter(|name| !name.contains(['/', '\0']))?;
    if name == "-" {
        return Some(String::new());
    }
    if name.split('-').any(str::is_empty) {
        return None;
    }
    let ends = name.match_indices('-').map(|(end, _)| end).chain([name.len()]);
    Some(ends.map(|end| format!("{}.slice", &name[..end])).collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices() {
        for (slice, path) in [
            ("system.slice", "system.slice"),
            ("-.slice", ""),
            ("test-a-b.slice", "test.slice/test-a.slice/test-a-b.slice"),
        ] {
            assert_eq!(expand_slice(slice).as_deref(), Some(path));
        }
        for bad in
            ["", ".slice", "a", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "a.scope", "../x.slice"]
        {
            assert_eq!(expand_slice(bad), None, "{bad}");
        }
    }

    #[test]
    fn names() {
        let name = |path, user| Name::of(path, "id", user).map(|name| (name.slice, name.unit));
        let is = |slice: &str, unit: &str| (slice.to_string(), unit.to_string());
        assert_eq!(name(None, false).unwrap(), is("system.slice", "naru-id.scope"));
        assert_eq!(name(Some(""), true).unwrap(), is("user.slice", "naru-id.scope"));
        assert_eq!(name(Some("a-b.slice:cri:c1"), false).unwrap(), is("a-b.slice", "cri-c1.scope"));
        let deep = format!("{}.slice::c1", "a-".repeat(200_000));
        assert!(name(Some(&deep), false).is_err());
        assert_eq!(name(Some("::c1"), false).unwrap(), is("system.slice", "-c1.scope"));
        assert_eq!(name(Some("a.slice:x:a-b.slice"), false).unwrap(), is("a.slice", "a-b.slice"));
        for bad in ["/a/b", "a:b", "a:b:c:d", "a.slice:b:../c"] {
            let error = name(Some(bad), false).unwrap_err().to_string();
            assert!(error.starts_with("/linux/cgroupsPath: "), "{error}");
        }
    }

    #[test]
    fn names_in_paths_of_dbus() {
        assert_eq!(escape("a-b.scope"), "a_2db_2escope");
        assert_eq!(escape("1a"), "_31a");
    }
}
