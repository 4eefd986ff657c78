//! Compiles `/linux/seccomp` into the BPF program that the container's process installs last before it executes, or, without
//! no_new_privs, before it gives up its capabilities. Makes no system calls and does not ask what the kernel can; `sys::seccomp`
//! installs. Called by `spawn` while the init stage mounts.
//!
//! The verdicts are those of runc with libseccomp: the profile's rules, an ABI the profile does not list is killed, and runc's ENOSYS for
//! calls newer than the profile. The program is another: spans of numbers with equal verdict, decided by a tree.
//!
//! Of the crate seccompiler only the instruction type is used: its filters have one action besides the default, know only the build's own
//! architecture and kill all others, have no NOTIFY, and are written as one list of comparisons per system call.

pub(crate) mod arch;
mod bpf;
mod choice;
mod order;
mod rules;
pub(crate) mod table;
mod verdicts;

pub mod interpret;
#[cfg(test)]
mod tests;

use anyhow::{Result, ensure};
use arch::{Arch, NATIVE, X32_BIT};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag as Flag};
use seccompiler::sock_filter;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What seccomp(2) takes.
#[derive(Debug)]
pub struct Filter {
    /// At most 4096 instructions.
    pub program: Vec<sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*` without `NEW_LISTENER`.
    pub flags: u32,
    /// A rule has `SCMP_ACT_NOTIFY`: the installer adds `SECCOMP_FILTER_FLAG_NEW_LISTENER`, and its descriptor goes to
    /// this agent.
    pub agent: Option<Box<Agent>>,
}

/// Who answers for the calls of `SCMP_ACT_NOTIFY` rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// `listenerPath`: a unix stream socket.
    pub path: PathBuf,
    /// `listenerMetadata`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
}

/// `BPF_MAXINSNS`.
pub const MAX_INSTRUCTIONS: usize = 4096;

impl Filter {
    /// As kept for exec and passed to the init stage: flags, then the kernel's eight bytes an instruction, all
    /// little-endian. The agent goes another way.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + 8 * self.program.len());
        bytes.extend_from_slice(&self.flags.to_le_bytes());
        for insn in &self.program {
            bytes.extend_from_slice(&insn.code.to_le_bytes());
            bytes.extend_from_slice(&[insn.jt, insn.jf]);
            bytes.extend_from_slice(&insn.k.to_le_bytes());
        }
        bytes
    }

    /// Does it let this call of the native architecture through, if its arguments are all zero?
    pub fn permits(&self, number: libc::c_long) -> bool {
        let call = interpret::Call { number: number as u32, arch: NATIVE.audit, args: [0; 6] };
        let verdict = interpret::verdict(&self.program, &call);
        verdict.is_some_and(|(verdict, _)| verdict == rules::RET_ALLOW || verdict == rules::RET_LOG)
    }

    /// Reads such bytes back; nothing where they are no filter.
    pub fn from_bytes(bytes: &[u8]) -> Option<Filter> {
        let (flags, rest) = bytes.split_first_chunk::<4>()?;
        let (insns, []) = rest.as_chunks::<8>() else { return None };
        let program = insns.iter().map(|b| sock_filter {
            code: u16::from_le_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        });
        Some(Filter { program: program.collect(), flags: u32::from_le_bytes(*flags), agent: None })
    }
}

/// The filter for a profile; `None` where it allows every call of every architecture. An error names the field by JSON pointer.
pub fn compile(profile: &LinuxSeccomp) -> Result<Option<Filter>> {
    compile_for(profile, NATIVE)
}

/// `compile` for a kernel of the architecture `native`.
pub(crate) fn compile_for(profile: &LinuxSeccomp, native: &'static Arch) -> Result<Option<Filter>> {
    let rules = rules::read(profile)?;
    let flags = flags(profile, rules.notify)?;
    let agent = profile.listener_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty());
    ensure!(agent || !rules.notify, "/linux/seccomp/listenerPath: a rule with SCMP_ACT_NOTIFY needs it");
    let metadata = profile.listener_metadata().as_ref().is_some_and(|metadata| !metadata.is_empty());
    ensure!(agent || !metadata, "/linux/seccomp/listenerMetadata: must not be set without listenerPath");
    let listed = profile.architectures().as_deref().unwrap_or_default();
    let syscalls = profile.syscalls().as_deref().unwrap_or_default();
    if profile.default_action() == LinuxSeccompAction::ScmpActAllow
        && syscalls.is_empty()
        && listed.is_empty()
    {
        return Ok(None);
    }
    // The native architecture is always in, listed or not, as in libseccomp. Listed ones that a kernel like this cannot run need no code.
    let mut archs = vec![(native, None)];
    for arch in native.compat.iter().filter(|arch| listed.contains(&arch.name)) {
        match arch.base {
            X32_BIT => archs[0].1 = Some(*arch),
            _ => archs.push((arch, None)),
        }
    }
    let mut choices = verdicts::Choices::default();
    let sections: Vec<_> = archs
        .into_iter()
        .map(|(arch, x32)| (arch.audit, verdicts::spans(&rules, arch, x32, &mut choices)))
        .collect();
    let mut program = bpf::Program::new(choices.list.len());
    program.ret(rules::RET_KILL_THREAD);
    for (audit, spans) in sections.iter().rev() {
        program.section(*audit, spans, &rules, &choices);
    }
    program.load_arch();
    let program = program.finish();
    ensure!(
        program.len() <= MAX_INSTRUCTIONS,
        "/linux/seccomp/syscalls: the filter needs {} instructions, the kernel takes {MAX_INSTRUCTIONS}",
        program.len()
    );
    // Without such a rule the path is ignored (config-linux.md, `listenerPath`).
    let agent =
        profile.listener_path().as_ref().filter(|_| rules.notify).map(|path| {
            Box::new(Agent { path: path.clone(), metadata: profile.listener_metadata().clone() })
        });
    Ok(Some(Filter { program, flags, agent }))
}

/// `SECCOMP_FILTER_FLAG_*` (linux/seccomp.h) of the profile, with runc's default.
fn flags(profile: &LinuxSeccomp, notify: bool) -> Result<u32> {
    const SPEC_ALLOW: u32 = 1 << 2;
    let Some(flags) = profile.flags() else { return Ok(SPEC_ALLOW) };
    let mut bits = 0;
    for (i, flag) in flags.iter().enumerate() {
        bits |= match flag {
            // Accepted and without effect, as in runc: the process that installs has one thread.
            Flag::SeccompFilterFlagTsync => 0,
            Flag::SeccompFilterFlagLog => 1 << 1,
            Flag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
            Flag::SeccompFilterFlagWaitKillableRecv => {
                // The kernel's EINVAL would come from within the container and say nothing.
                ensure!(
                    notify,
                    "/linux/seccomp/flags/{i}: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY"
                );
                1 << 5
            }
        };
    }
    Ok(bits)
}
