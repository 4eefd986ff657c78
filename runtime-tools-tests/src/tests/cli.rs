//! The command line: how flags may be written, what must work without anything, versions, features, spec.

use super::tests;
use crate::cx::{Cx, eq, same};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;

tests!["cli":
    version,
    version_without_anything,
    features deviates ["crun" = "names no architectures"],
    features_without_anything,
    features_names_what_works deviates ["crun" = "lists recursive ones that it gets EINVAL for", "runc" = "lists `defaults`"],
    help_of_every_command,
    help_touches_nothing,
    unknown_command,
    unknown_flag deviates ["crun" = "has words of its own"],
    unknown_global_flag deviates ["crun" = "has words of its own"],
    missing_flag_value,
    argument_counts deviates ["crun" = "has words of its own"],
    repeated_flags,
    repeated_bool_flags,
    single_dash_long_flags deviates ["crun" = "does not know them"],
    flag_with_equals,
    bool_flag_values deviates ["crun" = "takes no values for them"],
    flags_after_the_id deviates ["crun" = "takes none there"],
    global_flags_go_first deviates ["crun" = "takes them anywhere"],
    root_must_be_a_directory_of_its_own deviates ["runc" = "takes an empty one for the default", "crun" = "takes them"],
    root_is_made_private,
    systemd_cgroup_flag_is_known,
    rootless_flag_values deviates ["crun" = "ignores it"],
    spec_default,
    spec_runs,
    spec_refuses_to_overwrite deviates ["crun" = "has words of its own"],
    spec_in_bundle,
    spec_rootless deviates ["crun" = "keeps the network namespace"],
    environment_does_not_matter,
];

const COMMANDS: [&str; 10] =
    ["create", "start", "run", "state", "kill", "delete", "exec", "list", "ps", "spec"];

/// What dockerd parses: a first line `NAME version X`, then `commit:` if any and `spec:`.
fn version(cx: &Cx) -> Result<()> {
    for flag in ["--version", "-v"] {
        if cx.kind == "crun" && flag == "-v" {
            continue;
        }
        let out = cx.bare(&[flag]).run()?.ok()?;
        let lines = out.lines();
        let first: Vec<&str> = lines.first().map(|l| l.split_whitespace().collect()).unwrap_or_default();
        ensure!(first.len() >= 3 && first[1] == "version", "first line {first:?}");
        ensure!(first[2].starts_with(|c: char| c.is_ascii_digit()), "version {first:?}");
        ensure!(lines.iter().any(|l| l.starts_with("spec: 1.")), "no spec line in {lines:?}");
        eq("stderr", out.stderr, "")?;
    }
    Ok(())
}

/// No state directory, no privileges, a removed working directory, no environment.
fn version_without_anything(cx: &Cx) -> Result<()> {
    for args in [["--version"], ["--help"]] {
        bare_surroundings(cx, &args)?;
    }
    Ok(())
}

fn bare_surroundings(cx: &Cx, args: &[&str]) -> Result<String> {
    let gone = cx.path("gone");
    fs::create_dir_all(&gone)?;
    let runtime = cx.path("runtime");
    fs::copy(&cx.runtime, &runtime)?;
    let line = "cd \"$1\" && rmdir \"$1\" && shift && exec \"$@\"";
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", line, "sh"]).arg(&gone).arg(&runtime).args(args).env_clear();
    std::os::unix::fs::chown(&cx.dir, Some(65534), Some(65534))?;
    crate::sys::as_user(&mut command, 65534, 65534);
    let out = command.output()?;
    std::os::unix::fs::chown(&cx.dir, Some(0), Some(0))?;
    ensure!(out.status.success(), "{args:?}: {out:?}");
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    let noise = |l: &&str| !l.contains("getcwd");
    eq("stderr", stderr.lines().filter(noise).count(), 0)?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn features_json(cx: &Cx) -> Result<Value> {
    let out = cx.bare(&["features"]).run()?.ok()?;
    eq("stderr", out.stderr.as_str(), "")?;
    out.json()
}

fn features(cx: &Cx) -> Result<()> {
    let v = features_json(cx)?;
    for key in ["ociVersionMin", "ociVersionMax"] {
        ensure!(v[key].as_str().is_some_and(|s| s.starts_with("1.")), "{key} {}", v[key]);
    }
    let list = |pointer: &str| -> Vec<String> {
        let all = v.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        all.iter().filter_map(|s| s.as_str().map(String::from)).collect()
    };
    for (pointer, wanted) in [
        (
            "/hooks",
            &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"][..],
        ),
        (
            "/mountOptions",
            &[
                "bind", "rbind", "ro", "rw", "nosuid", "nodev", "noexec", "rprivate", "rshared", "rslave",
                "rro",
            ],
        ),
        ("/linux/namespaces", &["cgroup", "ipc", "mount", "network", "pid", "uts"]),
        ("/linux/capabilities", &["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]),
        ("/linux/seccomp/actions", &["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"]),
        ("/linux/seccomp/operators", &["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"]),
        ("/linux/seccomp/archs", &["SCMP_ARCH_X86_64"]),
    ] {
        let got = list(pointer);
        for word in wanted {
            ensure!(got.iter().any(|g| g == word), "no {word} in {pointer}: {got:?}");
        }
    }
    for pointer in ["/linux/cgroup/v1", "/linux/cgroup/v2", "/linux/seccomp/enabled"] {
        eq(pointer, v.pointer(pointer), Some(&json!(true)))?;
    }
    for pointer in [
        "/linux/cgroup/systemd",
        "/linux/apparmor/enabled",
        "/linux/selinux/enabled",
        "/linux/intelRdt/enabled",
    ] {
        ensure!(v.pointer(pointer).is_some_and(Value::is_boolean), "{pointer}: {:?}", v.pointer(pointer));
    }
    // containerd reads it without a check.
    ensure!(
        v.pointer("/linux/mountExtensions/idmap/enabled").is_some_and(Value::is_boolean),
        "mountExtensions {}",
        v["linux"]["mountExtensions"]
    );
    for (key, value) in v["annotations"].as_object().into_iter().flatten() {
        ensure!(value.as_str().is_some_and(|s| !s.contains('\n')), "annotation {key} {value}");
    }
    Ok(())
}

fn features_without_anything(cx: &Cx) -> Result<()> {
    let text = bare_surroundings(cx, &["features"])?;
    let _: Value = serde_json::from_str(&text).context("not JSON")?;
    Ok(())
}

/// A mount option that is listed must be one that is taken.
fn features_names_what_works(cx: &Cx) -> Result<()> {
    let v = features_json(cx)?;
    let mut refused = vec![];
    let mut b = cx.bundle()?;
    fs::create_dir(b.dir.join("volume"))?;
    for option in v["mountOptions"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        // These need more than one word or another kind of mount.
        if matches!(option, "idmap" | "ridmap" | "tmpcopyup" | "remount" | "copy-symlink" | "mand") {
            continue;
        }
        b.without_mount("/mnt").mount("/mnt", "bind", "volume", &["bind", option]);
        let out = b.run()?;
        if out.code != 0 {
            refused.push(format!("{option}: {}", out.stderr.trim_end()));
        }
    }
    ensure!(refused.is_empty(), "listed but refused: {}", refused.join("; "));
    Ok(())
}

fn help_of_every_command(cx: &Cx) -> Result<()> {
    for command in COMMANDS {
        for flag in ["--help", "-h"] {
            if cx.kind == "crun" && flag == "-h" {
                continue;
            }
            let out = cx.rt(&[command, flag])?.ok()?;
            ensure!(out.stdout.contains(command), "no {command} in its help: {}", out.stdout);
        }
    }
    cx.bare(&["--help"]).run()?.ok()?;
    Ok(())
}

fn help_touches_nothing(cx: &Cx) -> Result<()> {
    let root = cx.path("fresh-root");
    let name = root.display().to_string();
    let mut before: Vec<_> = fs::read_dir("/run")?.flatten().map(|e| e.file_name()).collect();
    for command in COMMANDS {
        cx.bare(&["--root", &name, command, "--help"]).run()?.ok()?;
        cx.bare(&[command, "--help"]).run()?.ok()?;
    }
    ensure!(!root.exists(), "the root was made");
    let mut after: Vec<_> = fs::read_dir("/run")?.flatten().map(|e| e.file_name()).collect();
    before.sort();
    after.sort();
    eq("/run", after, before)
}

fn unknown_command(cx: &Cx) -> Result<()> {
    ensure!(cx.rt(&["frobnicate"])?.code != 0, "an unknown command succeeded");
    Ok(())
}

fn unknown_flag(cx: &Cx) -> Result<()> {
    cx.rt(&["state", "--no-such-flag", "x"])?.fails(&["flag provided but not defined: -no-such-flag"])?;
    Ok(())
}

fn unknown_global_flag(cx: &Cx) -> Result<()> {
    cx.rt(&["--no-such-flag", "list"])?.fails(&["flag provided but not defined: -no-such-flag"])?;
    Ok(())
}

/// podman tells by these words whether a flag exists.
fn missing_flag_value(cx: &Cx) -> Result<()> {
    let out = cx.rt(&["create", "--pid-file"])?;
    ensure!(out.code != 0, "a flag without its value was taken");
    let text = format!("{}{}", out.stdout, out.stderr);
    ensure!(text.contains("flag needs an argument") || text.contains("requires an argument"), "{text}");
    Ok(())
}

fn argument_counts(cx: &Cx) -> Result<()> {
    let said = |args: &[&str], words: &str| -> Result<()> {
        let out = cx.rt(args)?;
        ensure!(out.code == 1, "{args:?}: exit {}", out.code);
        let text = out.said();
        ensure!(text.contains(words), "{args:?}: no {words:?} in {text}");
        Ok(())
    };
    for command in ["create", "start", "state"] {
        said(&[command], &format!("\"{command}\" requires exactly 1 argument"))?;
        said(&[command, "a", "b"], &format!("\"{command}\" requires exactly 1 argument"))?;
    }
    said(&["delete"], "\"delete\" requires exactly 1 argument")?;
    said(&["kill"], "\"kill\" requires a minimum of 1 argument")?;
    said(&["kill", "a", "9", "b"], "\"kill\" requires a maximum of 2 argument")?;
    said(&["exec"], "\"exec\" requires a minimum of 1 argument")?;
    said(&["ps"], "\"ps\" requires a minimum of 1 argument")?;
    Ok(())
}

/// conmon-rs and podman send flags twice; the last one counts.
fn repeated_flags(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let id = cx.id();
    let root = cx.root.display().to_string();
    let other = cx.path("other").display().to_string();
    let args =
        ["--root", &other, "--root", &root, "create", "--bundle", "/absent", "--bundle", &b.path(), &id];
    cx.bare(&args).run()?.ok()?;
    cx.rt(&["state", &id])?.ok()?;
    cx.rt(&["delete", "--force", "--force", &id])?.ok()?;
    Ok(())
}

fn repeated_bool_flags(cx: &Cx) -> Result<()> {
    let out = cx.cmd(&["--systemd-cgroup", "--systemd-cgroup", "state", "absent"]).run()?.code(1)?;
    ensure!(out.said().contains("does not exist") || cx.kind == "crun", "{}", out.stderr);
    cx.cmd(&["list", "-q", "-q"]).run()?.ok()?;
    Ok(())
}

fn single_dash_long_flags(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let id = cx.id();
    let root = cx.root.display().to_string();
    cx.bare(&["-root", &root, "create", "-bundle", &b.path(), "-no-new-keyring", &id]).run()?.ok()?;
    cx.bare(&[format!("-root={root}").as_str(), "delete", "-force", &id]).run()?.ok()?;
    Ok(())
}

fn flag_with_equals(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let id = cx.id();
    let file = cx.path("pid=file");
    let root = format!("--root={}", cx.root.display());
    let (bundle, pid) = (format!("--bundle={}", b.path()), format!("--pid-file={}", file.display()));
    cx.bare(&[root.as_str(), "create", &bundle, &pid, &id]).run()?.ok()?;
    ensure!(file.exists(), "no pid file");
    cx.rt(&["delete", "--force", &id])?.ok()?;
    Ok(())
}

fn bool_flag_values(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]);
    let c = b.start()?;
    cx.rt(&["delete", "--force=false", &c.id])?.fails(&["not stopped"])?;
    cx.cmd(&["--debug=false", "--systemd-cgroup=false", "state", &c.id]).run()?.ok()?;
    cx.rt(&["delete", "--force=true", &c.id])?.ok()?;
    ensure!(cx.cmd(&["--debug=maybe", "state", "x"]).run()?.code != 0, "--debug=maybe was taken");
    Ok(())
}

fn flags_after_the_id(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    let id = cx.id();
    cx.rt(&["create", &id, "--bundle", &b.path()])?.ok()?;
    cx.rt(&["delete", &id, "--force"])?.ok()?;
    Ok(())
}

fn global_flags_go_first(cx: &Cx) -> Result<()> {
    let root = cx.root.display().to_string();
    cx.bare(&["list", "--root", &root]).run()?.fails(&["flag provided but not defined: -root"])?;
    Ok(())
}

fn root_must_be_a_directory_of_its_own(cx: &Cx) -> Result<()> {
    let b = cx.bundle()?;
    b.save()?;
    for root in ["/", ""] {
        let id = cx.id();
        let out = cx.bare(&["--root", root, "create", "--bundle", &b.path(), &id]).run()?;
        if out.code == 0 {
            cx.bare(&["--root", root, "delete", "--force", &id]).run()?;
        }
        ensure!(out.code != 0, "--root {root:?} was taken");
    }
    Ok(())
}

fn root_is_made_private(cx: &Cx) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let b = cx.bundle()?;
    b.save()?;
    let root = cx.path("deep/er/root");
    let name = root.display().to_string();
    let id = cx.id();
    cx.bare(&["--root", &name, "create", "--bundle", &b.path(), &id]).umask(0).run()?.ok()?;
    let mode = fs::metadata(&root)?.permissions().mode() & 0o777;
    let own = fs::metadata(root.join(&id))?.permissions().mode() & 0o777;
    cx.bare(&["--root", &name, "delete", "--force", &id]).run()?.ok()?;
    ensure!(mode == 0o700 || cx.kind == "crun", "mode of the root {mode:o}");
    ensure!(own & 0o022 == 0, "mode of the state directory {own:o}");
    Ok(())
}

/// The driver may be absent, the flag may not.
fn systemd_cgroup_flag_is_known(cx: &Cx) -> Result<()> {
    let out = cx.cmd(&["--systemd-cgroup", "list", "-q"]).run()?;
    ensure!(!out.said().contains("not defined"), "{}", out.stderr);
    Ok(())
}

fn rootless_flag_values(cx: &Cx) -> Result<()> {
    for value in ["true", "false", "auto", "AUTO", "1", "0"] {
        cx.cmd(&["--rootless", value, "list", "-q"]).run()?.ok()?;
    }
    let b = cx.bundle()?;
    b.save()?;
    let id = cx.id();
    let out = cx.cmd(&["--rootless", "sometimes", "create", "--bundle", &b.path(), &id]).run()?;
    ensure!(out.code != 0, "--rootless sometimes was taken");
    Ok(())
}

fn spec_default(cx: &Cx) -> Result<()> {
    let dir = cx.path("spec");
    fs::create_dir(&dir)?;
    cx.cmd(&["spec"]).cwd(&dir).run()?.ok()?;
    let text = fs::read_to_string(dir.join("config.json"))?;
    ensure!(
        text.starts_with("{\n\t\"ociVersion\"") || cx.kind == "crun",
        "not indented by tabs: {}",
        &text[..40]
    );
    let v: Value = serde_json::from_str(&text)?;
    same("args", &v["process"]["args"], json!(["sh"]))?;
    same("terminal", &v["process"]["terminal"], json!(true))?;
    same("root", &v["root"], json!({"path": "rootfs", "readonly": true}))?;
    same("noNewPrivileges", &v["process"]["noNewPrivileges"], json!(true))?;
    same(
        "bounding",
        &v["process"]["capabilities"]["bounding"],
        json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]),
    )?;
    let destinations: Vec<&str> =
        v["mounts"].as_array().context("mounts")?.iter().filter_map(|m| m["destination"].as_str()).collect();
    eq(
        "mounts",
        destinations,
        vec!["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"],
    )?;
    for kind in ["pid", "network", "ipc", "uts", "mount"] {
        ensure!(
            v["linux"]["namespaces"].as_array().is_some_and(|l| l.iter().any(|n| n["type"] == kind)),
            "no {kind} namespace"
        );
    }
    ensure!(
        v["linux"]["maskedPaths"].as_array().is_some_and(|l| l.len() > 5),
        "masked paths {}",
        v["linux"]["maskedPaths"]
    );
    Ok(())
}

fn spec_runs(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    cx.cmd(&["spec"]).cwd(&b.dir).run()?.ok()?;
    b.config = serde_json::from_str(&fs::read_to_string(b.dir.join("config.json"))?)?;
    b.set("/process/terminal", json!(false));
    let v = b.inside()?;
    same("hostname", &v["hostname"], json!(b.config["hostname"]))
}

fn spec_refuses_to_overwrite(cx: &Cx) -> Result<()> {
    let dir = cx.path("spec");
    fs::create_dir(&dir)?;
    fs::write(dir.join("config.json"), "mine")?;
    cx.cmd(&["spec"]).cwd(&dir).run()?.fails(&["File config.json exists. Remove it first"])?;
    eq("the file", fs::read_to_string(dir.join("config.json"))?, "mine")
}

fn spec_in_bundle(cx: &Cx) -> Result<()> {
    for flag in ["--bundle", "-b"] {
        let dir = cx.path(&format!("spec{flag}"));
        fs::create_dir(&dir)?;
        cx.rt(&["spec", flag, &dir.display().to_string()])?.ok()?;
        ensure!(dir.join("config.json").exists(), "no config.json");
    }
    Ok(())
}

fn spec_rootless(cx: &Cx) -> Result<()> {
    let dir = cx.path("spec");
    fs::create_dir(&dir)?;
    cx.cmd(&["spec", "--rootless"]).cwd(&dir).run()?.ok()?;
    let v: Value = serde_json::from_str(&fs::read_to_string(dir.join("config.json"))?)?;
    let kinds: Vec<&str> = v["linux"]["namespaces"]
        .as_array()
        .context("namespaces")?
        .iter()
        .filter_map(|n| n["type"].as_str())
        .collect();
    ensure!(kinds.contains(&"user") && !kinds.contains(&"network"), "namespaces {kinds:?}");
    eq("mappings", v["linux"]["uidMappings"].as_array().map(Vec::len), Some(1))
}

/// podman starts and kills with nothing but XDG_RUNTIME_DIR set.
fn environment_does_not_matter(cx: &Cx) -> Result<()> {
    let mut b = cx.bundle()?;
    b.probe(&["sleep"]).save()?;
    let c = b.container();
    let root = cx.root.display().to_string();
    for args in [
        vec!["create", "--bundle", b.dir.to_str().unwrap_or_default(), &c.id],
        vec!["start", &c.id],
        vec!["kill", &c.id, "KILL"],
    ] {
        let mut cmd = cx.bare(&[&["--root", root.as_str()][..], &args].concat());
        cmd.command().env_clear().env("XDG_RUNTIME_DIR", "/run/user/0");
        cmd.run()?.ok()?;
    }
    c.becomes("stopped")?;
    c.delete()?.ok()?;
    Ok(())
}
