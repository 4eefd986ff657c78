//! The runtime's own file: a container must never be able to write to it (CVE-2019-5736). Each test runs a copy of the
//! runtime, so that a hole costs nothing.

use super::tests;
use crate::bundle::Bundle;
use crate::container::{Container, finish, reap};
use crate::cx::{Cx, eq, wait_for};
use anyhow::{Result, ensure};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

tests!["own_binary":
    while_created,
    while_exec_starts,
    as_interpreter,
    as_program,
];

/// A copy of the runtime at a path of its own.
struct Copy<'a> {
    cx: &'a Cx,
    path: PathBuf,
}

impl<'a> Copy<'a> {
    fn new(cx: &'a Cx) -> Result<Self> {
        let path = cx.path("the-runtime");
        fs::copy(&cx.runtime, &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Copy { cx, path })
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(&self.path);
        command.arg("--root").arg(&self.cx.root).args(args).stdin(std::process::Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Result<i32> {
        Ok(self
            .command(args)
            .stdout(fs::File::create(self.cx.path("run.out"))?)
            .status()?
            .code()
            .unwrap_or(-1))
    }

    fn unchanged(&self) -> Result<()> {
        ensure!(fs::read(&self.path)? == fs::read(&self.cx.runtime)?, "the runtime's file was written to");
        Ok(())
    }
}

/// A bundle whose root may look into every process.
fn powerful<'a>(cx: &'a Cx) -> Result<Bundle<'a>> {
    let mut b = cx.bundle()?;
    let caps =
        json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_SYS_ADMIN"]);
    b.set("/process/capabilities", json!({"bounding": caps, "permitted": caps, "effective": caps}));
    Ok(b)
}

fn created<'a>(copy: &Copy<'a>) -> Result<Container<'a>> {
    let mut b = powerful(copy.cx)?;
    b.probe(&["sleep", "400"]).save()?;
    let c = b.container();
    eq("create", copy.run(&["create", "--bundle", &b.path(), &c.id])?, 0)?;
    Ok(c)
}

/// Starts `probe overwrite` in the container, detached, so that no process of the runtime keeps the file busy; waits
/// until it holds the file. Its pid.
fn attack(copy: &Copy, c: &Container, target: &str) -> Result<i32> {
    let (said, file) = (copy.cx.path("attack"), copy.cx.path("attack.pid"));
    let name = file.display().to_string();
    let args = ["exec", "--detach", "--pid-file", &name, &c.id, "/bin/probe", "overwrite", target, "1500"];
    let status = copy.command(&args).stdout(fs::File::create(&said)?).status()?;
    eq("exec", status.code(), Some(0))?;
    wait_for("the attacker", || Ok(fs::read_to_string(&said)?.contains('\n').then_some(())))?;
    Ok(fs::read_to_string(&file)?.parse()?)
}

/// Process 1 is the runtime's own until start; afterwards nothing keeps the file from being opened for writing.
fn while_created(cx: &Cx) -> Result<()> {
    let copy = Copy::new(cx)?;
    let c = created(&copy)?;
    let pid = c.pid()?;
    attack(&copy, &c, "/proc/1/exe")?;
    eq("start", copy.run(&["start", &c.id])?, 0)?;
    // The attacker dies with the container; what it did before is what counts.
    reap(pid)?;
    eq("delete", copy.run(&["delete", &c.id])?, 0)?;
    copy.unchanged()
}

/// The process that `exec` makes is the runtime's for a moment, inside of the container.
fn while_exec_starts(cx: &Cx) -> Result<()> {
    let copy = Copy::new(cx)?;
    let mut b = powerful(cx)?;
    b.probe(&["sleep"]).save()?;
    let c = b.container();
    eq("run", copy.run(&["run", "--detach", "--bundle", &b.path(), &c.id])?, 0)?;
    // Every process that is not the attacker, by whatever number it gets.
    let mut children = vec![];
    for pid in 2..12 {
        let args = [
            "exec",
            &c.id,
            "/bin/probe",
            "seq",
            "wait",
            "/go",
            "---",
            "overwrite",
            &format!("/proc/{pid}/exe"),
            "300",
        ];
        children.push(copy.command(&args).stdout(fs::File::create(cx.path("attack"))?).spawn()?);
    }
    fs::write(b.rootfs().join("go"), "")?;
    for _ in 0..20 {
        copy.run(&["exec", &c.id, "/bin/probe", "true"])?;
    }
    for child in children {
        finish(child)?;
    }
    let pid = c.pid()?;
    c.kill("KILL")?.ok()?;
    reap(pid)?;
    eq("delete", copy.run(&["delete", &c.id])?, 0)?;
    copy.unchanged()
}

/// `#!/proc/self/exe` makes the kernel run the runtime again, as the program of the container.
fn as_interpreter(cx: &Cx) -> Result<()> {
    let copy = Copy::new(cx)?;
    let mut b = powerful(cx)?;
    let script = b.rootfs().join("bin/script");
    fs::write(&script, "#!/proc/self/exe\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    b.set("/process/args", json!(["/bin/script"])).save()?;
    let c = b.container();
    if copy.run(&["create", "--bundle", &b.path(), &c.id])? == 0 {
        let attacker = attack(&copy, &c, "/proc/1/exe")?;
        copy.run(&["start", &c.id])?;
        reap(attacker)?;
        copy.run(&["delete", "--force", &c.id])?;
    }
    copy.unchanged()
}

fn as_program(cx: &Cx) -> Result<()> {
    let copy = Copy::new(cx)?;
    let mut b = powerful(cx)?;
    // What the attacker does works where nothing protects a file.
    eq("control", b.lines(&["overwrite", "/etc/plain", "100"])?, vec!["held", "wrote"])?;
    b.set("/process/args", json!(["/proc/self/exe", "--version"])).save()?;
    let id = cx.id();
    copy.run(&["run", "--bundle", &b.path(), &id])?;
    copy.run(&["delete", "--force", &id])?;
    copy.unchanged()
}
