//! Which security modules this host has in force: asked by the runtime before it makes anything, and only for a
//! configuration that names a label.

use crate::plan::process::Process;
use anyhow::{Result, bail};
use std::path::Path;

/// Refuses labels that nobody would enforce, in runc's words.
pub fn check(process: &Process) -> Result<()> {
    if process.apparmor.is_some() && !has_apparmor(Path::new("/sys")) {
        bail!("/process/apparmorProfile: apparmor: config provided but apparmor not supported");
    }
    if process.selinux.is_some() && !has_selinux() {
        bail!(
            "/process/selinuxLabel: selinux label is specified in config, but selinux is disabled or not supported"
        );
    }
    Ok(())
}

/// AppArmor is in force and its filesystem can be seen, as runc asks.
fn has_apparmor(sys: &Path) -> bool {
    sys.join("kernel/security/apparmor").exists()
        && std::fs::read(sys.join("module/apparmor/parameters/enabled"))
            .is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// SELinux is in force: its filesystem is mounted and a policy is loaded.
pub fn has_selinux() -> bool {
    use nix::sys::statfs::{SELINUX_MAGIC, statfs};
    let mounted = |path: &str| statfs(path).is_ok_and(|stat| stat.filesystem_type() == SELINUX_MAGIC);
    (mounted("/sys/fs/selinux") || mounted("/selinux"))
        && std::fs::read("/proc/self/attr/current").is_ok_and(|label| is_label_of_a_policy(&label))
}

/// Before a policy is loaded every process is called `kernel`.
fn is_label_of_a_policy(label: &[u8]) -> bool {
    let text = label.strip_suffix(b"\0").unwrap_or(label);
    !text.is_empty() && text != b"kernel"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apparmor_needs_its_filesystem_and_to_be_switched_on() {
        let dir = std::env::temp_dir().join(format!("naru-lsm-{}", std::process::id()));
        let parameters = dir.join("module/apparmor/parameters");
        std::fs::create_dir_all(&parameters).unwrap();
        std::fs::write(parameters.join("enabled"), "Y\n").unwrap();
        assert!(!has_apparmor(&dir));
        std::fs::create_dir_all(dir.join("kernel/security/apparmor")).unwrap();
        assert!(has_apparmor(&dir));
        std::fs::write(parameters.join("enabled"), "N\n").unwrap();
        assert!(!has_apparmor(&dir));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn selinux_needs_a_policy() {
        for (label, wanted) in [
            (&b"system_u:system_r:kernel_t:s0\0"[..], true),
            (b"unconfined", true),
            (b"kernel\0", false),
            (b"kernel", false),
            (b"", false),
        ] {
            assert_eq!(is_label_of_a_policy(label), wanted);
        }
    }
}
