//! A bundle on disk: a root filesystem with the probe, and a config.json that tests change by JSON pointer.

use crate::container::Container;
use crate::cx::{Cx, Out};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// One bundle; `config` is written when a container is made from it.
pub struct Bundle<'a> {
    /// The surroundings.
    pub cx: &'a Cx,
    /// The bundle's directory.
    pub dir: PathBuf,
    /// The configuration.
    pub config: Value,
}

impl<'a> Bundle<'a> {
    /// A new bundle with `default_config` and a filled root filesystem.
    pub fn new(cx: &'a Cx) -> Result<Self> {
        let dir = cx.path(&format!("bundle.{}", cx.next()));
        fs::create_dir(&dir)?;
        fill_rootfs(&dir.join("rootfs"), &cx.probe)?;
        let mut config = default_config();
        config["linux"]["cgroupsPath"] = json!(match cx.systemd {
            true => format!("system.slice:suite:{}", cx.id()),
            false => format!("{}/{}", cx.cgroup, cx.id()),
        });
        Ok(Bundle { cx, dir, config })
    }

    /// Sets a value by JSON pointer; parents are made as objects.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut at = &mut self.config;
        for part in pointer.split('/').skip(1) {
            at = match at {
                Value::Array(list) => &mut list[part.parse::<usize>().unwrap_or(usize::MAX)],
                other => {
                    if !other.is_object() {
                        *other = json!({});
                    }
                    &mut other[part]
                }
            };
        }
        *at = value;
        self
    }

    /// Appends to the list at a pointer.
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut list = self.config.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        list.push(value);
        self.set(pointer, Value::Array(list))
    }

    /// Removes the last part of a pointer from its parent.
    pub fn remove(&mut self, pointer: &str) -> &mut Self {
        if let Some((parent, key)) = pointer.rsplit_once('/')
            && let Some(Value::Object(map)) = self.config.pointer_mut(parent)
        {
            map.remove(key);
        }
        self
    }

    /// The program: the probe with these arguments.
    pub fn probe<S: AsRef<str>>(&mut self, args: &[S]) -> &mut Self {
        let mut all = vec!["/bin/probe".to_string()];
        all.extend(args.iter().map(|a| a.as_ref().to_string()));
        self.set("/process/args", json!(all))
    }

    /// Lets the program come before others of its processor (`flood`, `notify-flood`).
    pub fn may_come_first(&mut self) -> &mut Self {
        for set in ["bounding", "effective", "permitted"] {
            self.push(&format!("/process/capabilities/{set}"), json!("CAP_SYS_NICE"));
        }
        self
    }

    /// Removes a namespace by type.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Self {
        if let Some(list) = self.config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
            list.retain(|n| n["type"] != kind);
        }
        self
    }

    /// Removes the mount at a destination.
    pub fn without_mount(&mut self, destination: &str) -> &mut Self {
        if let Some(list) = self.config.pointer_mut("/mounts").and_then(Value::as_array_mut) {
            list.retain(|m| m["destination"] != destination);
        }
        self
    }

    /// Adds a mount.
    pub fn mount(
        &mut self,
        destination: &str,
        kind: &str,
        source: impl AsRef<Path>,
        options: &[&str],
    ) -> &mut Self {
        let source = source.as_ref().display().to_string();
        self.push(
            "/mounts",
            json!({"destination": destination, "type": kind, "source": source, "options": options}),
        )
    }

    /// Adds a hook of this kind that runs the host's probe with `probe hook FILE ARGS`; gives the file.
    pub fn hook(&mut self, kind: &str, args: &[&str]) -> PathBuf {
        let file = self.cx.path(&format!("hook.{kind}.{}", self.cx.next()));
        let probe = self.cx.probe.display().to_string();
        let mut argv = vec!["probe".to_string(), "hook".into(), file.display().to_string()];
        argv.extend(args.iter().map(|a| a.to_string()));
        self.push(&format!("/hooks/{kind}"), json!({"path": probe, "args": argv}));
        file
    }

    /// The rootfs on the host.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Writes config.json.
    pub fn save(&self) -> Result<()> {
        fs::write(self.dir.join("config.json"), serde_json::to_vec_pretty(&self.config)?)
            .context("write config.json")
    }

    /// The directory as text for command lines.
    pub fn path(&self) -> String {
        self.dir.display().to_string()
    }

    /// Runs it in the foreground to its end.
    pub fn run(&self) -> Result<Out> {
        self.save()?;
        self.cx.rt(&["run", "--bundle", &self.path(), &self.cx.id()])
    }

    /// Runs the probe in the foreground with these arguments, which must succeed; its lines.
    pub fn lines<S: AsRef<str>>(&mut self, args: &[S]) -> Result<Vec<String>> {
        let out = self.probe(args).run()?.ok()?;
        Ok(out.lines().iter().map(|s| s.to_string()).collect())
    }

    /// Runs the probe with several modes: one answer each.
    pub fn answers(&mut self, modes: &[&[&str]]) -> Result<Vec<String>> {
        let mut args = vec!["seq"];
        for (i, mode) in modes.iter().enumerate() {
            if i > 0 {
                args.push("---");
            }
            args.extend(*mode);
        }
        let lines = self.lines(&args)?;
        anyhow::ensure!(
            lines.len() == modes.len(),
            "{} answers to {} questions: {lines:?}",
            lines.len(),
            modes.len()
        );
        Ok(lines)
    }

    /// Asks several questions and compares each answer.
    pub fn expect(&mut self, table: &[(&[&str], &str)]) -> Result<()> {
        let modes: Vec<&[&str]> = table.iter().map(|(m, _)| *m).collect();
        let got = self.answers(&modes)?;
        let wrong: Vec<String> = table
            .iter()
            .zip(&got)
            .filter(|((_, wanted), got)| wanted != got)
            .map(|((mode, wanted), got)| format!("{}: got {got}, wanted {wanted}", mode.join(" ")))
            .collect();
        anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(())
    }

    /// Runs `probe json`: what the process sees.
    pub fn inside(&mut self) -> Result<Value> {
        self.probe(&["json"]).run()?.ok()?.json()
    }

    /// Creates a container from it; `create` must succeed.
    pub fn create(&self) -> Result<Container<'a>> {
        let c = self.container();
        self.save()?;
        c.create(&[])?.ok()?;
        Ok(c)
    }

    /// Creates and starts.
    pub fn start(&self) -> Result<Container<'a>> {
        let c = self.create()?;
        c.cx.rt(&["start", &c.id])?.ok()?;
        Ok(c)
    }

    /// A container with a new id, not made yet.
    pub fn container(&self) -> Container<'a> {
        Container { cx: self.cx, id: self.cx.id(), bundle: self.dir.clone() }
    }
}

/// A small root filesystem: the probe, the usual directories, a passwd file.
pub fn fill_rootfs(root: &Path, probe: &Path) -> Result<()> {
    for dir in
        ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "home", "mnt", "run", "usr", "var", "home/user"]
    {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy(probe, root.join("bin/probe")).context("copy the probe")?;
    fs::set_permissions(root.join("bin/probe"), fs::Permissions::from_mode(0o755))?;
    symlink("probe", root.join("bin/link"))?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n1001:x:0:0::/wrong:/bin/sh\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\ntty:x:5:\n")?;
    fs::write(root.join("etc/plain"), "plain\n")?;
    Ok(())
}

/// A usual configuration: all namespaces but user and time, the usual mounts and masks, few capabilities.
pub fn default_config() -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/probe", "true"],
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "suite",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"}
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
