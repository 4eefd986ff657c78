//! An ordinary user as the caller: with and without newuidmap, with and without a cgroup of their own.
//!
//! The user exists only in this test's mounts: files of accounts that are bound over the machine's.

use super::tests;
use crate::bundle::fill_rootfs;
use crate::cgroup;
use crate::container::reap;
use crate::cx::{Cx, Out, eq, exit_code, same, skip, wait_for};
use crate::terminal::ConsoleSocket;
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

tests!["rootless":
    spec_and_run deviates ["crun" = "maps all that was granted"],
    lifecycle deviates ["crun" = "knows no other state root then"],
    root_flag,
    exec deviates ["crun" = "starts in / and takes no group from the config"],
    exec_in_a_created_one deviates ["runc" = "enters it only where its user is root", "crun" = "cannot open its namespaces"],
    terminal,
    foreground,
    helpers_map_what_was_granted deviates ["runc" = "cannot always enter it right after its start", "crun" = "mostly cannot open the namespaces of such a process"],
    helpers_refuse_the_rest,
    without_helpers deviates ["runc" = "does not always come to say why", "crun" = "maps what it can"],
    groups_of_the_caller deviates ["crun" = "maps all that was granted"],
    additional_groups deviates ["crun" = "sets them where it can"],
    binds_keep_locked_flags,
    devices,
    own_binary deviates ["crun" = "mostly cannot open the namespaces of such a process"],
    no_cgroup deviates ["crun" = "has words of its own"],
    shared_pid_namespace deviates ["crun" = "kills the init process only"],
    limits_need_a_cgroup deviates ["crun" = "goes on without"],
    rootless_false deviates ["crun" = "ignores the flag"],
    delegated_cgroup,
    cgroup_that_cannot_be_entered deviates ["crun" = "stays outside where no path is given"],
    idmapped_mounts_are_refused deviates ["crun" = "lets the kernel refuse"],
    joined_user_namespace deviates ["crun" = "mostly cannot open the namespaces of such a process"],
    time_namespace deviates ["crun" = "mostly cannot open the namespaces of such a process"],
    errors deviates ["crun" = "makes a user namespace of its own"],
];

const UID: u32 = 1000;
const GID: u32 = 1007;
const FIRST: u32 = 300_000;
const COUNT: u32 = 65_536;

/// An ordinary user with a bundle.
struct User<'a> {
    cx: &'a Cx,
    home: PathBuf,
    runtime: PathBuf,
    path: String,
    config: Value,
    covered: Vec<&'static str>,
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        for path in &self.covered {
            // The mount namespace ends with the test in any case.
            let _ = umount2(*path, MntFlags::MNT_DETACH);
        }
    }
}

impl<'a> User<'a> {
    fn new(cx: &'a Cx) -> Result<Self> {
        for tool in ["setpriv", "newuidmap", "newgidmap"] {
            if !Path::new("/usr/bin").join(tool).exists() {
                return skip(format!("no {tool} here"));
            }
        }
        for dir in cx.dir.ancestors() {
            if fs::metadata(dir)?.mode() & 0o001 == 0 {
                return skip(format!("an ordinary user cannot enter {}", dir.display()));
            }
        }
        let home = cx.path("home");
        let mut user = User {
            cx,
            runtime: home.join(&cx.kind),
            home,
            path: crate::cx::PATH.into(),
            config: Value::Null,
            covered: vec![],
        };
        user.account(
            "/etc/passwd",
            &format!("root:x:0:0::/root:/bin/sh\nordinary:x:{UID}:{GID}::/:/bin/sh\n"),
        )?;
        user.account("/etc/group", &format!("root:x:0:\nordinary:x:{GID}:\n"))?;
        user.account("/etc/subuid", &format!("ordinary:{FIRST}:{COUNT}\n"))?;
        user.account("/etc/subgid", &format!("ordinary:{FIRST}:{COUNT}\n"))?;
        fs::create_dir(&user.home)?;
        fs::copy(&cx.runtime, &user.runtime)?;
        fs::set_permissions(&user.runtime, fs::Permissions::from_mode(0o755))?;
        for dir in ["run", "bundle"] {
            fs::create_dir(user.home.join(dir))?;
        }
        fs::set_permissions(user.home.join("run"), fs::Permissions::from_mode(0o700))?;
        fill_rootfs(&user.bundle().join("rootfs"), &cx.probe)?;
        own(&user.home.join("run"), UID, GID)?;
        own(&user.bundle(), UID, GID)?;
        user.run(&["spec", "--rootless", "--bundle", &user.bundle().display().to_string()])?.ok()?;
        user.config = serde_json::from_slice(&fs::read(user.bundle().join("config.json"))?)?;
        user.config["process"]["terminal"] = json!(false);
        user.config["hostname"] = json!("suite");
        Ok(user)
    }

    fn account(&mut self, path: &'static str, text: &str) -> Result<()> {
        let file = self.cx.path(&path.replace('/', "_"));
        fs::write(&file, text)?;
        if !Path::new(path).exists() {
            return skip(format!("no {path} here"));
        }
        mount(Some(&file), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).context(path)?;
        self.covered.push(path);
        Ok(())
    }

    fn bundle(&self) -> PathBuf {
        self.home.join("bundle")
    }

    /// The directory of states that the runtime chooses by itself.
    fn states(&self) -> PathBuf {
        self.home.join("run").join(&self.cx.kind)
    }

    fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
        let at = match self.config.pointer_mut(parent) {
            Some(at) => at,
            None => return self,
        };
        match at {
            Value::Array(list) => list.push(value),
            other => other[key] = value,
        }
        self
    }

    fn probe(&mut self, args: &[&str]) -> &mut Self {
        let mut all = vec!["/bin/probe"];
        all.extend(args);
        self.set("/process/args", json!(all))
    }

    /// More ids than the caller's own.
    fn granted(&mut self) -> Result<&mut Self> {
        for (field, own) in [("uidMappings", UID), ("gidMappings", GID)] {
            self.config["linux"][field] = json!([{"containerID": 0, "hostID": own, "size": 1},
                {"containerID": 1, "hostID": FIRST, "size": COUNT}]);
        }
        Ok(self)
    }

    fn save(&self) -> Result<()> {
        fs::write(self.bundle().join("config.json"), serde_json::to_vec(&self.config)?)?;
        Ok(())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args([
            "--reuid",
            &UID.to_string(),
            "--regid",
            &GID.to_string(),
            "--clear-groups",
            "--inh-caps=-all",
        ]);
        command.arg(&self.runtime).args(args).current_dir(self.bundle()).stdin(Stdio::null());
        command.env_clear().env("PATH", &self.path).env("XDG_RUNTIME_DIR", self.home.join("run"));
        command
    }

    /// Runs a command of the runtime in the bundle.
    fn run(&self, args: &[&str]) -> Result<Out> {
        self.run_command(self.command(args), args.join(" "))
    }

    fn run_command(&self, mut command: Command, line: String) -> Result<Out> {
        let n = self.cx.next();
        let (out_path, err_path) = (self.cx.path(&format!("out.{n}")), self.cx.path(&format!("err.{n}")));
        command.stdout(File::create(&out_path)?).stderr(File::create(&err_path)?);
        let start = std::time::Instant::now();
        let mut child = command.spawn()?;
        let Some(status) = crate::sys::wait_timeout(&mut child, crate::cx::COMMAND_LIMIT)? else {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("hang: {line}");
        };
        let code = exit_code(status);
        let out = Out {
            line,
            code,
            out_path,
            err_path,
            stdout: String::new(),
            stderr: String::new(),
            took: start.elapsed(),
        };
        out.again()
    }

    /// Saves and runs it to its end.
    fn run_config(&self) -> Result<Out> {
        self.save()?;
        self.run(&["run", &self.cx.id()])
    }

    /// Saves, creates and starts; id and pid.
    fn start(&self) -> Result<(String, i32)> {
        self.save()?;
        let id = self.cx.id();
        self.run(&["create", &id])?.ok()?;
        let pid = self.run(&["state", &id])?.ok()?.json()?["pid"].as_i64().context("no pid")? as i32;
        self.run(&["start", &id])?.ok()?;
        Ok((id, pid))
    }

    fn end(&self, (id, pid): (String, i32)) -> Result<()> {
        self.run(&["kill", &id, "KILL"])?.ok()?;
        reap(pid)?;
        self.run(&["delete", &id])?.ok()?;
        self.nothing_left()
    }

    fn nothing_left(&self) -> Result<()> {
        let left: Vec<_> =
            fs::read_dir(self.states()).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        let left: Vec<_> = left.iter().filter(|name| !name.to_string_lossy().starts_with('.')).collect();
        ensure!(left.is_empty(), "states left: {left:?}");
        Ok(())
    }
}

fn own(path: &Path, uid: u32, gid: u32) -> Result<()> {
    lchown(path, Some(uid), Some(gid))?;
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}

fn first_line(out: &Out) -> Result<Value> {
    serde_json::from_str(out.stdout.lines().next().unwrap_or_default()).with_context(|| out.stdout.clone())
}

fn spec_and_run(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    let out = user.probe(&[
        "seq",
        "json",
        "---",
        "cat",
        "/proc/self/setgroups",
        "---",
        "cat",
        "/proc/self/uid_map",
    ]);
    let out = out.run_config()?.ok()?;
    let v = first_line(&out)?;
    same("uid", &v["uid"], json!([0, 0, 0]))?;
    same("gid", &v["gid"], json!([0, 0, 0]))?;
    same("hostname", &v["hostname"], json!("suite"))?;
    same("pid", &v["pid"], json!(1))?;
    ensure!(out.stdout.contains("ok \"deny\\n\""), "{}", out.stdout);
    ensure!(out.stdout.contains(&format!("{UID}          1\\n")), "{}", out.stdout);
    user.nothing_left()
}

fn lifecycle(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.probe(&["sleep"]).save()?;
    let id = cx.id();
    user.run(&["create", &id])?.ok()?;
    let state = user.run(&["state", &id])?.ok()?.json()?;
    same("status", &state["status"], json!("created"))?;
    let root = fs::metadata(user.states())?;
    eq("mode of the state root", format!("{:o}", root.mode() & 0o7777), "1700")?;
    eq("owner of the state root", root.uid(), UID)?;
    user.run(&["start", &id])?.ok()?;
    let listed = user.run(&["list", "--format", "json"])?.ok()?.json()?;
    same("status in the list", &listed[0]["status"], json!("running"))?;
    same("owner in the list", &listed[0]["owner"], json!("ordinary"))?;
    user.run(&["delete", &id])?.fails(&["that is not stopped: running"])?;
    user.run(&["kill", &id, "KILL"])?.ok()?;
    reap(state["pid"].as_i64().context("no pid")? as i32)?;
    same("status", &user.run(&["state", &id])?.ok()?.json()?["status"], json!("stopped"))?;
    user.run(&["delete", &id])?.ok()?;
    let (id, _) = user.start()?;
    user.run(&["delete", "--force", &id])?.ok()?;
    user.nothing_left()
}

fn root_flag(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.probe(&["true"]).save()?;
    let root = user.home.join("run/other").display().to_string();
    user.run(&["--root", &root, "run", &cx.id()])?.ok()?;
    ensure!(Path::new(&root).is_dir(), "no {root}");
    Ok(())
}

fn exec(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    let c = user.probe(&["sleep"]).start()?;
    let v = user.run(&["exec", &c.0, "/bin/probe", "json"])?.ok()?.json()?;
    same("uid", &v["uid"], json!([0, 0, 0]))?;
    for name in ["user", "mnt", "pid", "ipc", "uts"] {
        let wanted = fs::read_link(format!("/proc/{}/ns/{name}", c.1))?.display().to_string();
        same(name, &v["ns"][name], json!(wanted))?;
    }
    eq("exit code", user.run(&["exec", &c.0, "/bin/probe", "exit", "9"])?.code, 9)?;
    eq("exit code", user.run(&["exec", &c.0, "/missing"])?.code, 255)?;
    user.end(c)
}

/// As Podman's `init` and `exec` do.
fn exec_in_a_created_one(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.granted()?.set("/process/user", json!({"uid": 5, "gid": 6})).probe(&["sleep"]).save()?;
    let id = cx.id();
    user.run(&["create", &id])?.ok()?;
    let v = user.run(&["exec", &id, "/bin/probe", "json"])?.ok()?.json()?;
    same("uid", &v["uid"], json!([5, 5, 5]))?;
    user.run(&["delete", "--force", &id])?.ok()?;
    user.nothing_left()
}

fn terminal(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.probe(&["sleep"]).set("/process/terminal", json!(true)).save()?;
    let socket = ConsoleSocket::new(&cx.path("console"))?;
    chown(&socket.path, Some(UID), Some(GID))?;
    let id = cx.id();
    user.run(&["create", "--console-socket", &socket.path.display().to_string(), &id])?.ok()?;
    let _master = socket.receive()?.master;
    let pid = user.run(&["state", &id])?.ok()?.json()?["pid"].as_i64().context("no pid")? as i32;
    user.run(&["start", &id])?.ok()?;
    eq("owner of the terminal", fs::metadata(format!("/proc/{pid}/root/dev/pts/0"))?.uid(), UID)?;
    user.end((id, pid))
}

fn foreground(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    eq("exit code", user.probe(&["exit", "42"]).run_config()?.code, 42)?;
    user.nothing_left()
}

fn helpers_map_what_was_granted(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.granted()?.set("/process/user", json!({"uid": 5, "gid": 6}));
    let c = user.probe(&["sleep"]).start()?;
    let status = fs::read_to_string(format!("/proc/{}/status", c.1))?;
    let uid = FIRST + 4;
    ensure!(status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}")), "{status}");
    let setgroups = fs::read_to_string(format!("/proc/{}/setgroups", c.1))?;
    eq("setgroups", setgroups.trim(), "allow")?;
    let v = user.run(&["exec", "--user", "7:8", &c.0, "/bin/probe", "json"])?.ok()?.json()?;
    same("uid of exec", &v["uid"], json!([7, 7, 7]))?;
    user.end(c)
}

fn helpers_refuse_the_rest(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.granted()?;
    user.config["linux"]["uidMappings"][1]["hostID"] = json!(FIRST - 1);
    user.probe(&["true"]).run_config()?.code(1)?;
    user.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    user.run_config()?.code(1)?;
    user.nothing_left()
}

fn without_helpers(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.path = user.home.display().to_string();
    user.probe(&["true"]).run_config()?.ok()?;
    user.granted()?.run_config()?.fails(&["mapping tool not present"])?;
    user.nothing_left()
}

/// Those that the caller has stay without newgidmap, and are nobody's inside.
fn groups_of_the_caller(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.probe(&["json"]).save()?;
    let id = cx.id();
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--reuid", &UID.to_string(), "--regid", &GID.to_string(), "--groups", "50,60"]);
    command.arg(&user.runtime).args(["run", &id]).current_dir(user.bundle()).stdin(Stdio::null());
    command.env_clear().env("PATH", &user.path).env("XDG_RUNTIME_DIR", user.home.join("run"));
    let v = first_line(&user.run_command(command, "run".into())?.ok()?)?;
    same("groups", &v["groups"], json!([65534, 65534]))
}

fn additional_groups(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.probe(&["json"]).set("/process/user/additionalGids", json!([5]));
    let refusal = "cannot set any additional groups in a rootless container";
    user.run_config()?.fails(&[refusal])?;
    user.nothing_left()?;
    let c = user.set("/process/user/additionalGids", json!([])).probe(&["sleep"]).start()?;
    user.run(&["exec", "--additional-gids", "5", &c.0, "/bin/probe", "true"])?.fails_with(255, &[refusal])?;
    user.end(c)
}

/// A mount of the host that is read-only, nosuid or the like is so inside, whatever the options leave out.
fn binds_keep_locked_flags(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    let dir = user.home.join("locked");
    fs::create_dir(&dir)?;
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, Some("mode=777"))?;
    let source = dir.display().to_string();
    user.set(
        "/mounts/-",
        json!({"destination": "/mnt", "source": source, "options": ["rbind", "ro", "nosuid"]}),
    );
    let out = user.probe(&["json"]).run_config();
    umount2(&dir, MntFlags::MNT_DETACH)?;
    let lines = first_line(&out?.ok()?)?["mountinfo"].to_string();
    let line = lines.split("\",\"").find(|l| l.contains(" /mnt ")).context("not mounted")?.to_string();
    for flag in ["ro", "nosuid", "nodev", "noexec"] {
        ensure!(line.contains(flag), "no {flag}: {line}");
    }
    Ok(())
}

fn devices(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    let out = user.probe(&["seq", "json", "---", "write", "/dev/null", "x"]).run_config()?.ok()?;
    let v = first_line(&out)?;
    for (name, rdev) in [("null", "1:3"), ("zero", "1:5"), ("urandom", "1:9"), ("tty", "5:0")] {
        same(name, &v["dev"][name]["rdev"], json!(rdev))?;
    }
    ensure!(out.stdout.lines().nth(1) == Some("ok"), "{}", out.stdout);
    Ok(())
}

/// CVE-2019-5736, for a runtime that the user has installed and could write to.
fn own_binary(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    chown(&user.runtime, Some(UID), Some(GID))?;
    user.probe(&["sleep"]).save()?;
    let id = cx.id();
    user.run(&["create", &id])?.ok()?;
    let pid = user.run(&["state", &id])?.ok()?.json()?["pid"].as_i64().context("no pid")? as i32;
    let exe = format!("/proc/{pid}/exe");
    let seen = fs::metadata(&exe)?;
    let own = fs::metadata(&user.runtime)?;
    ensure!((seen.dev(), seen.ino()) != (own.dev(), own.ino()), "the user's own file is shown");
    ensure!(fs::OpenOptions::new().write(true).open(&exe).is_err(), "what is shown can be written to");
    user.run(&["start", &id])?.ok()?;
    user.run(&["exec", &id, "/bin/probe", "true"])?.ok()?;
    user.end((id, pid))
}

fn no_cgroup(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    let c = user.probe(&["sleep"]).start()?;
    for command in [&["ps", &c.0][..], &["pause", &c.0], &["update", "--pids-limit", "5", &c.0]] {
        user.run(command)?.code(1)?;
    }
    user.end(c)
}

/// Then the init process is all that can be found (runc#4395).
fn shared_pid_namespace(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    if let Some(list) = user.config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
        list.retain(|n| n["type"] != "pid");
    }
    if let Some(list) = user.config.pointer_mut("/mounts").and_then(Value::as_array_mut) {
        list.retain(|m| m["destination"] != "/proc");
        list.insert(
            0,
            json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}),
        );
    }
    user.config["linux"]["maskedPaths"] = json!([]);
    user.config["linux"]["readonlyPaths"] = json!([]);
    let c = user.probe(&["sleep"]).start()?;
    user.end(c)
}

fn limits_need_a_cgroup(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.config["linux"]["resources"] = json!({"pids": {"limit": 10}});
    user.probe(&["true"]).run_config()?.code(1)?;
    user.config["linux"]["resources"] = json!({});
    user.config["linux"]["cgroupsPath"] = json!(format!("{}/mine", cx.cgroup));
    user.run_config()?.code(1)?;
    user.nothing_left()
}

fn rootless_false(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.probe(&["true"]).save()?;
    user.run(&["--rootless", "false", "run", &cx.id()])?.code(1)?;
    user.run(&["--rootless", "true", "run", &cx.id()])?.ok()?;
    user.run(&["--rootless=auto", "run", &cx.id()])?.ok()?;
    user.run(&["--rootless", "maybe", "run", &cx.id()])?.code(1)?;
    user.nothing_left()
}

/// A subtree of cgroup v2 that belongs to the user, as systemd's user manager gives it.
fn delegated_cgroup(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    let mut user = User::new(cx)?;
    let base = format!("/sys/fs/cgroup{}/delegated", cx.cgroup);
    cgroup::make(&format!("{}/delegated/self", cx.cgroup))?;
    for dir in [base.clone(), format!("{base}/self")] {
        for file in ["", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"] {
            chown(format!("{dir}{file}"), Some(UID), Some(GID))?;
        }
    }
    let pids = cgroup::has("pids");
    if pids {
        for dir in ["/sys/fs/cgroup".to_string(), format!("/sys/fs/cgroup{}", cx.cgroup)] {
            fs::write(format!("{dir}/cgroup.subtree_control"), "+pids").context(dir)?;
        }
        user.config["linux"]["resources"] = json!({"pids": {"limit": 10}});
    }
    user.probe(&["sleep"]).save()?;
    let id = cx.id();
    let mut command = Command::new("/bin/sh");
    let script = format!(
        "echo $$ > {base}/self/cgroup.procs && exec setpriv --reuid {UID} --regid {GID} --clear-groups {} create {id}",
        user.runtime.display()
    );
    command.args(["-c", &script]).current_dir(user.bundle()).stdin(Stdio::null());
    command.env_clear().env("PATH", &user.path).env("XDG_RUNTIME_DIR", user.home.join("run"));
    user.run_command(command, "create".into())?.ok()?;
    let pid = user.run(&["state", &id])?.ok()?.json()?["pid"].as_i64().context("no pid")? as i32;
    let path = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = path.lines().find_map(|l| l.strip_prefix("0::")).context("no cgroup")?.to_string();
    eq("cgroup", path.clone(), format!("{}/delegated/{id}", cx.cgroup))?;
    if pids {
        eq("pids.max", fs::read_to_string(format!("/sys/fs/cgroup{path}/pids.max"))?.trim(), "10")?;
    }
    user.run(&["start", &id])?.ok()?;
    let listed = user.run(&["ps", "--format", "json", &id])?.ok()?.json()?;
    same("ps", &listed, json!([pid]))?;
    user.run(&["pause", &id])?.ok()?;
    same("status", &user.run(&["state", &id])?.ok()?.json()?["status"], json!("paused"))?;
    user.run(&["resume", &id])?.ok()?;
    user.end((id, pid))?;
    ensure!(!Path::new(&format!("/sys/fs/cgroup{path}")).exists(), "the cgroup is left");
    cgroup::remove(&format!("{}/delegated", cx.cgroup))
}

/// The directory is the user's and a cgroup can be made there, but processes cannot be moved into it.
fn cgroup_that_cannot_be_entered(cx: &Cx) -> Result<()> {
    cx.need_unified(true)?;
    let mut user = User::new(cx)?;
    let base = format!("/sys/fs/cgroup{}/closed", cx.cgroup);
    cgroup::make(&format!("{}/closed/self", cx.cgroup))?;
    chown(&base, Some(UID), Some(GID))?;
    user.probe(&["true"]);
    for path in [None, Some(format!("{}/closed/given", cx.cgroup))] {
        if let Some(path) = path {
            user.config["linux"]["cgroupsPath"] = json!(path);
        }
        user.save()?;
        let mut command = Command::new("/bin/sh");
        let script = format!(
            "echo $$ > {base}/self/cgroup.procs && exec setpriv --reuid {UID} --regid {GID} --clear-groups {} run {}",
            user.runtime.display(),
            cx.id()
        );
        command.args(["-c", &script]).current_dir(user.bundle()).stdin(Stdio::null());
        command.env_clear().env("PATH", &user.path).env("XDG_RUNTIME_DIR", user.home.join("run"));
        user.run_command(command, "run".into())?.fails(&[
            "unable to apply cgroup configuration",
            "permission denied",
            &base,
        ])?;
        user.nothing_left()?;
        let made: Vec<_> = fs::read_dir(&base)?.flatten().filter(|e| e.path().is_dir()).collect();
        ensure!(made.len() == 1 || cx.kind != "naru", "{made:?}");
    }
    cgroup::remove(&format!("{}/closed", cx.cgroup))
}

/// The kernel wants more rights over the filesystem than an ordinary user has.
fn idmapped_mounts_are_refused(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.probe(&["true"]);
    let volume = user.home.join("volume");
    fs::create_dir(&volume)?;
    own(&volume, UID, GID)?;
    let at = user.config["mounts"].as_array().map_or(0, Vec::len);
    let ids = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    let mount = json!({"destination": "/mnt", "type": "bind", "source": volume, "options": ["bind"],
        "uidMappings": ids(UID), "gidMappings": ids(GID)});
    let config = user.config.clone();
    for (mount, field) in [
        (mount, "uidMappings"),
        (
            json!({"destination": "/mnt", "type": "bind", "source": volume, "options": ["bind", "idmap"]}),
            "options",
        ),
    ] {
        user.config = config.clone();
        user.set("/mounts/-", mount);
        let out =
            user.run_config()?.fails(&["id-mapped mounts are not supported for rootless containers"])?;
        if cx.kind == "naru" {
            let field = format!("/mounts/{at}/{field}: ");
            ensure!(out.stderr.contains(&field), "no {field} in {}", out.stderr);
        }
        user.nothing_left()?;
    }
    Ok(())
}

fn joined_user_namespace(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    let first = user.probe(&["sleep"]).start()?;
    let path = format!("/proc/{}/ns/user", first.1);
    let wanted = fs::read_link(&path)?.display().to_string();
    let config = user.config.clone();
    if let Some(list) = user.config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
        list.retain(|n| n["type"] != "user");
        list.push(json!({"type": "user", "path": path}));
    }
    if let Some(linux) = user.config["linux"].as_object_mut() {
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    }
    let v = first_line(&user.probe(&["json"]).run_config()?.ok()?)?;
    same("user namespace", &v["ns"]["user"], json!(wanted))?;
    same("uid", &v["uid"], json!([0, 0, 0]))?;
    user.config = config;
    user.end(first)
}

fn time_namespace(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.set("/linux/namespaces/-", json!({"type": "time"}));
    user.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000}});
    let c = user.probe(&["sleep"]).start()?;
    let out = user.run(&[
        "exec",
        &c.0,
        "/bin/probe",
        "seq",
        "readlink",
        "/proc/self/ns/time",
        "---",
        "cat",
        "/proc/uptime",
    ])?;
    let wanted = fs::read_link(format!("/proc/{}/ns/time", c.1))?.display().to_string();
    ensure!(out.stdout.contains(&wanted), "{} {}", out.stdout, out.stderr);
    wait_for("the end", || user.end(c.clone()).map(Some))
}

fn errors(cx: &Cx) -> Result<()> {
    let mut user = User::new(cx)?;
    user.probe(&["true"]);
    let config = user.config.clone();
    let mut refused = |change: &dyn Fn(&mut Value), phrase: &str| -> Result<()> {
        user.config = config.clone();
        change(&mut user.config);
        user.run_config()?.fails(&[phrase])?;
        user.nothing_left()
    };
    let without_user = |config: &mut Value| {
        if let Some(list) = config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
            list.retain(|n| n["type"] != "user");
        }
    };
    refused(
        &|config| {
            without_user(config);
            config["linux"]["uidMappings"] = json!([]);
            config["linux"]["gidMappings"] = json!([]);
        },
        "rootless container requires user namespaces",
    )?;
    refused(
        &|config| config["linux"]["gidMappings"] = json!([]),
        if cx.kind == "naru" {
            "rootless containers requires at least one GID mapping"
        } else {
            "gid mapping"
        },
    )?;
    refused(
        &|config| {
            let mount =
                json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["gid=5"]});
            if let Some(list) = config["mounts"].as_array_mut() {
                list.push(mount);
            }
        },
        "cannot specify gid=5 mount option for rootless container",
    )
}
