//! `features`: what this runtime can do, in the spec's features structure. Engines switch on what they find here:
//! `rro` among the mount options gives Docker and CRI-O recursive read-only binds, `idmap` gives Kubernetes pods with
//! user namespaces. So a line stands here only when the code behind it does.
//!
//! It needs no privileges, reads nothing and prints nothing but the JSON: CRI-O parses stdout and stderr together.

use crate::cmd::version;
use crate::exit::ExitCode;
use anyhow::Result;
use serde::Serialize;
use std::io::Write;

type Names = &'static [&'static str];

/// Everything, in one place. Change a line together with what it speaks of.
const FEATURES: Features = Features {
    oci_version_min: "1.0.0",
    oci_version_max: version::SPEC,
    hooks: &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
    mount_options: Vec::new(),
    annotations: Annotations { checkpoint: "true" },
    potentially_unsafe_config_annotations: UNSAFE_ANNOTATIONS,
    linux: Linux {
        namespaces: &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
        capabilities: CAPABILITIES,
        cgroup: Cgroup { v1: true, v2: true, systemd: true, systemd_user: true, rdma: true },
        seccomp: Seccomp {
            enabled: true,
            actions: SECCOMP_ACTIONS,
            operators: SECCOMP_OPERATORS,
            archs: SECCOMP_ARCHS,
            known_flags: SECCOMP_FLAGS,
            supported_flags: SECCOMP_FLAGS,
        },
        apparmor: Enabled { enabled: true },
        selinux: Enabled { enabled: true },
        intel_rdt: IntelRdt { enabled: true, schemata: true, monitoring: true },
        mount_extensions: MountExtensions { idmap: Enabled { enabled: true } },
        net_devices: Enabled { enabled: true },
        memory_policy: MemoryPolicy { modes: MEMORY_MODES, flags: MEMORY_FLAGS },
    },
};

/// Acted upon, one below the other as they are sorted.
const UNSAFE_ANNOTATIONS: Names = &[
    "org.criu.config",
    "org.systemd.property.",
    crate::plan::KEEP_GROUPS,
    crate::plan::mounts::CONTEXT_TYPE,
];

/// In the kernel's order.
#[rustfmt::skip]
const CAPABILITIES: Names = &[
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
];

#[rustfmt::skip]
const SECCOMP_ACTIONS: Names = &[
    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
];

#[rustfmt::skip]
const SECCOMP_OPERATORS: Names = &[
    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
];

/// Names a profile may list; those that a kernel of this architecture cannot run get no code.
#[rustfmt::skip]
const SECCOMP_ARCHS: Names = &[
    "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64", "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB", "SCMP_ARCH_X32",
    "SCMP_ARCH_X86", "SCMP_ARCH_X86_64",
];

const SECCOMP_FLAGS: Names = &[
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

#[rustfmt::skip]
const MEMORY_MODES: Names = &[
    "MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED", "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_FLAGS: Names = &["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: Names,
    /// The words that mounts are compiled by.
    mount_options: Vec<&'static str>,
    annotations: Annotations,
    /// Whoever may set these may change more than the container; a dot at the end stands for all that begin so.
    potentially_unsafe_config_annotations: Names,
    linux: Linux,
}

/// What the spec's structure has no place for.
#[derive(Serialize)]
struct Annotations {
    #[serde(rename = "org.opencontainers.runc.checkpoint.enabled")]
    checkpoint: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Names,
    capabilities: Names,
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
    memory_policy: MemoryPolicy,
}

#[derive(Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Serialize)]
struct MemoryPolicy {
    modes: Names,
    flags: Names,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: Names,
    operators: Names,
    archs: Names,
    known_flags: Names,
    supported_flags: Names,
}

#[derive(Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

#[derive(Serialize)]
struct Enabled {
    enabled: bool,
}

/// Prints the structure, indented by four spaces as runc does.
pub fn features() -> Result<ExitCode> {
    std::io::stdout().write_all(&render()?)?;
    Ok(ExitCode::SUCCESS)
}

fn render() -> Result<Vec<u8>> {
    let mut text = Vec::with_capacity(8192);
    let spaces = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let features =
        Features { mount_options: crate::plan::mount_options::option_names().collect(), ..FEATURES };
    features.serialize(&mut serde_json::Serializer::with_formatter(&mut text, spaces))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{
        Arch, LinuxNamespaceType, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator,
        MemoryPolicyFlagType, MemoryPolicyModeType,
    };

    #[test]
    fn has_what_engines_dereference() {
        let text = render().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        // CRI-O discards everything without these two; containerd dereferences linux without a check.
        for pointer in [
            "/ociVersionMin",
            "/ociVersionMax",
            "/linux/seccomp/enabled",
            "/linux/mountExtensions/idmap/enabled",
            "/linux/cgroup/systemdUser",
        ] {
            assert!(value.pointer(pointer).is_some(), "{pointer}");
        }
        assert_eq!(text.last(), Some(&b'\n'));
    }

    #[test]
    fn lists_are_sorted_as_runc_sorts_them() {
        assert!(crate::plan::mount_options::option_names().is_sorted());
        assert!(
            crate::plan::mount_options::option_names().any(|name| name == "rro"),
            "Docker's recursive read-only binds need it"
        );
        for names in [
            UNSAFE_ANNOTATIONS,
            SECCOMP_ACTIONS,
            SECCOMP_OPERATORS,
            SECCOMP_ARCHS,
            SECCOMP_FLAGS,
            MEMORY_MODES,
            MEMORY_FLAGS,
        ] {
            assert!(names.is_sorted());
        }
    }

    #[test]
    fn names_are_those_a_config_may_hold() {
        fn parse<T: serde::de::DeserializeOwned>(names: Names) {
            for name in names {
                serde_json::from_value::<T>((*name).into()).expect(name);
            }
        }
        parse::<LinuxSeccompAction>(SECCOMP_ACTIONS);
        parse::<LinuxSeccompOperator>(SECCOMP_OPERATORS);
        parse::<Arch>(SECCOMP_ARCHS);
        parse::<LinuxSeccompFilterFlag>(SECCOMP_FLAGS);
        parse::<MemoryPolicyModeType>(MEMORY_MODES);
        parse::<MemoryPolicyFlagType>(MEMORY_FLAGS);
        parse::<LinuxNamespaceType>(FEATURES.linux.namespaces);
        let mut known: Vec<_> = caps::all().into_iter().collect();
        known.sort_by_key(caps::Capability::bitmask);
        assert_eq!(known.iter().map(ToString::to_string).collect::<Vec<_>>(), CAPABILITIES);
    }
}
