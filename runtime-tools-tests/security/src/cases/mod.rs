//! The cases that are more than data, by name. Each returns what there is to say, or fails, or skips.

mod absent;
mod attack;
mod host;
mod load;
mod process;
mod races;
mod setup;

use crate::bundle::Bundle;
use crate::container::Container;
use crate::cx::{Cx, skip, wait_for};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Runs the function of a case; `attempts` is for races.
pub fn run(name: &str, cx: &Cx, attempts: u32) -> Result<String> {
    match name {
        "ptmx_fake_exec" => attack::ptmx_fake_exec(cx),
        "pts_swap_race" => attack::pts_swap_race(cx, attempts),
        "exe_unwrap" => attack::exe_unwrap(cx),
        "exec_snoop" => attack::exec_snoop(cx, attempts),
        "exec_snoop_ptrace" => attack::exec_snoop_ptrace(cx, attempts),
        "no_pivot_proc" => attack::no_pivot_proc(cx),
        "handshake_inside" => attack::handshake_inside(cx),
        "dest_exchange_race" => races::dest_exchange_race(cx, attempts),
        "mkdir_race" => races::mkdir_race(cx, attempts),
        "mask_target_race" => races::mask_target_race(cx, attempts),
        "sysctl_redirect" => races::sysctl_redirect(cx, attempts),
        "cwd_procfd" => process::cwd_procfd(cx),
        "argv0_procfd" => process::argv0_procfd(cx),
        "payload_fds" => process::payload_fds(cx),
        "created_fds" => process::created_fds(cx),
        "listen_fds_junk" => process::listen_fds_junk(cx),
        "user_strings" => process::user_strings(cx),
        "passwd_numeric_name" => process::passwd_numeric_name(cx),
        "passwd_hostile" => process::passwd_hostile(cx),
        "caps_exact" => process::caps_exact(cx),
        "groups_cleared" => process::groups_cleared(cx),
        "nnp_failure" => process::nnp_failure(cx),
        "seccomp_order" => process::seccomp_order(cx),
        "keyring" => process::keyring(cx),
        "tmpcopyup_hostile" => setup::tmpcopyup_hostile(cx),
        "memfd_noexec" => setup::memfd_noexec(cx),
        "hook_fds" => setup::hook_fds(cx),
        "hook_env" => setup::hook_env(cx),
        "hook_timeout_tree" => setup::hook_timeout_tree(cx),
        "exec_subcgroup" => setup::exec_subcgroup(cx),
        "dev_default_deny" => setup::dev_default_deny(cx),
        "big_bootstrap" => setup::big_bootstrap(cx),
        "json_bombs" => setup::json_bombs(cx),
        "lsm_fake_proc" => setup::lsm_fake_proc(cx),
        "lsm_label_real" => setup::lsm_label_real(cx),
        "rootless_cgroup_ro" => setup::rootless_cgroup_ro(cx),
        "delegation_owner" => setup::delegation_owner(cx),
        "restore_hostile" => setup::restore_hostile(cx),
        "id_traversal" => host::id_traversal(cx),
        "pidfile_symlink" => host::pidfile_symlink(cx),
        "state_corrupt" => host::state_corrupt(cx),
        "pid_reuse" => host::pid_reuse(cx),
        "dead_init_start" => host::dead_init_start(cx),
        "exhaustion" => host::exhaustion(cx),
        "parallel_verbs" => load::parallel_verbs(cx, attempts),
        "mount_leak" => load::mount_leak(cx, attempts),
        "kill_everywhere" | "errno_sweep" => skip("the fault sweep runs it: ../sweep"),
        "enosys_sweep" => absent::enosys_sweep(cx),
        other => bail!("matrix.json: no function {other}"),
    }
}

/// A program beside the probe, copied into the root filesystem.
fn tool(b: &Bundle, name: &str) -> Result<String> {
    let inside = format!("/bin/{name}");
    let to = b.rootfs().join(&inside[1..]);
    fs::copy(host_tool(b.cx, name), &to).with_context(|| format!("copy {name}"))?;
    fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    Ok(inside)
}

/// The same on the host.
fn host_tool(cx: &Cx, name: &str) -> PathBuf {
    cx.probe.with_file_name(name)
}

fn capabilities(b: &mut Bundle, names: &[&str]) {
    b.set("/process/capabilities", json!({"bounding": names, "permitted": names, "effective": names}));
}

/// A container whose program is the attacker, started; waits until it has said something. Gives the file of its words.
fn attacker<'a>(b: &mut Bundle<'a>, mode: &[&str]) -> Result<(Container<'a>, PathBuf)> {
    let mut args = vec![tool(b, "attacker")?];
    args.extend(mode.iter().map(|word| word.to_string()));
    b.set("/process/args", json!(args)).save()?;
    let c = b.container();
    let out = c.create(&[])?.ok()?;
    c.start()?.ok()?;
    wait_for("the attacker", || Ok(fs::read_to_string(&out.out_path)?.contains('\n').then_some(())))?;
    Ok((c, out.out_path))
}

/// The last line that somebody has said in a file.
fn last_line(path: &std::path::Path) -> Result<String> {
    Ok(fs::read_to_string(path)?.lines().last().unwrap_or_default().to_string())
}

/// Everything about a container in the mount namespace of its init process.
fn mounts_of(pid: i32) -> Result<String> {
    fs::read_to_string(format!("/proc/{pid}/mountinfo")).context("read the container's mountinfo")
}
