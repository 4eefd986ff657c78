//! Refusals of values that no other part of the plan looks at before something has been made.

use anyhow::{Result, bail};
use oci_spec::runtime::{Hook, Hooks, LinuxResources};
use std::os::unix::ffi::OsStrExt;

/// config.md "POSIX-platform Hooks": a path is absolute, a timeout more than nothing.
pub fn hooks(hooks: &Hooks) -> Result<()> {
    #[allow(deprecated)]
    let lists: [(&str, &Option<Vec<Hook>>); 6] = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (name, list) in lists {
        for (index, hook) in list.iter().flatten().enumerate() {
            for (field, list) in [("args", hook.args()), ("env", hook.env())] {
                if let Some(at) = list.iter().flatten().position(|text| text.contains('\0')) {
                    bail!("/hooks/{name}/{index}/{field}/{at}: contains a NUL byte");
                }
            }
            if hook.path().as_os_str().as_bytes().contains(&0) {
                bail!("/hooks/{name}/{index}/path: contains a NUL byte");
            }
            if !hook.path().is_absolute() {
                bail!("/hooks/{name}/{index}/path: {:?} is not an absolute path", hook.path());
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                bail!("/hooks/{name}/{index}/timeout: must be more than 0 seconds");
            }
        }
    }
    Ok(())
}

/// Numbers that the crate oci-spec reads with a sign although they have none, and what goes to the kernel as text.
pub fn resources(resources: &LinuxResources) -> Result<()> {
    if let Some(cpu) = resources.cpu() {
        name(cpu.cpus().as_deref(), "/linux/resources/cpu/cpus")?;
        name(cpu.mems().as_deref(), "/linux/resources/cpu/mems")?;
    }
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        if limit.limit() < 0 {
            bail!("/linux/resources/hugepageLimits/{index}/limit: {} is negative", limit.limit());
        }
    }
    Ok(())
}

/// A name for the kernel, which would take what stands behind a NUL as well.
pub fn name(name: Option<&str>, pointer: &str) -> Result<()> {
    if name.is_some_and(|name| name.contains('\0')) {
        bail!("{pointer}: contains a NUL byte");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_need_absolute_paths_and_some_time() {
        let read =
            |json: &str| hooks(&serde_json::from_str(json).unwrap()).map_err(|error| error.to_string());
        assert_eq!(read(r#"{"prestart":[{"path":"/a","timeout":1}],"poststop":[{"path":"/b"}]}"#), Ok(()));
        let error = read(r#"{"poststart":[{"path":"/a"},{"path":"b"}]}"#).unwrap_err();
        assert!(error.starts_with("/hooks/poststart/1/path: "), "{error}");
        let error = read(r#"{"createContainer":[{"path":"/a","timeout":0}]}"#).unwrap_err();
        assert!(error.starts_with("/hooks/createContainer/0/timeout: "), "{error}");
        for (fields, wanted) in [
            (r#""path":"/a\u0000""#, "/hooks/poststop/0/path: "),
            (r#""path":"/a","args":["a","\u0000"]"#, "/hooks/poststop/0/args/1: "),
            (r#""path":"/a","env":["A=\u0000"]"#, "/hooks/poststop/0/env/0: "),
        ] {
            let error = read(&format!(r#"{{"poststop":[{{{fields}}}]}}"#)).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
