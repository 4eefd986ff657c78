//! Hooks of the container's namespaces: createContainer and startContainer.

use super::{Container, Outcome};
use crate::hooks;
use crate::sync::{At, Failure, Step};
use crate::sys::{Errno, process, seccomp};
use oci_spec::runtime::Hook;
use std::ffi::{CString, OsStr};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

/// In the runtime's tree still, with the runtime's capabilities and `umask`, from the directory where the container's
/// root is: hooks name files of it by `./`.
pub fn create_container(child: &Container, root: BorrowedFd, umask: u32) -> Outcome {
    nix::unistd::fchdir(root).at(Step::CreateContainerHook)?;
    let own = process::umask(umask);
    let done = run_all(child, &child.plan.create_container, "creating", Step::CreateContainerHook, |_| {});
    process::umask(own);
    done
}

/// As the program will run: with its environment, unless they have one of their own, and under its filter,
/// which with no_new_privs this process itself installs only after them.
pub fn start_container(child: &Container, home: Option<&CString>) -> Outcome {
    let init = &child.plan.process;
    run_all(child, &child.plan.start_container, "created", Step::StartContainerHook, |command| {
        command.env_clear();
        for entry in init.env.strings().iter().chain(home) {
            let entry = entry.to_bytes();
            if let Some(at) = entry.iter().position(|&byte| byte == b'=') {
                command.env(OsStr::from_bytes(&entry[..at]), OsStr::from_bytes(&entry[at + 1..]));
            }
        }
        if init.no_new_privileges
            && let Some(filter) = init.seccomp.get().filter(|filter| filter.agent.is_none())
        {
            seccomp::install_before_exec(command, &filter.program, filter.flags);
        }
    })
}

/// Runs them in order; the first failure ends the start. The pid they are told is that inside the container.
fn run_all(
    child: &Container,
    list: &[Hook],
    status: &str,
    step: Step,
    prepare: impl Fn(&mut Command),
) -> Outcome {
    if list.is_empty() {
        return Ok(());
    }
    let json = child.state.json(status, nix::unistd::getpid().as_raw());
    for (index, hook) in list.iter().enumerate() {
        hooks::run_prepared(hook, &json, &prepare).map_err(|text| Failure {
            step,
            index,
            errno: Errno::ECANCELED,
            text,
        })?;
    }
    Ok(())
}
