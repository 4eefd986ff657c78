//! What a configuration must hold for a caller who is not root: checked before anything is made.

use super::ids::{self, Maps};
use super::namespaces::Namespaces;
use anyhow::{Context, Result, bail};
use oci_spec::runtime::Spec;

/// What runc says.
pub const NO_GROUPS: &str = "cannot set any additional groups in a rootless container";

/// Without root's rights all others come from a user namespace, and every id must be one of its.
pub fn check(spec: &Spec, namespaces: &Namespaces, maps: &Maps) -> Result<()> {
    if !namespaces.private(libc::CLONE_NEWUSER) {
        bail!("/linux/namespaces: rootless container requires user namespaces");
    }
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let maps = [("uidMappings", mount.uid_mappings()), ("gidMappings", mount.gid_mappings())];
        let given = maps.iter().find(|(_, list)| list.as_ref().is_some_and(|list| !list.is_empty()));
        let mapped = |option: &String| option == "idmap" || option == "ridmap";
        let field = match given {
            Some((field, _)) => field,
            None if mount.options().iter().flatten().any(mapped) => "options",
            None => continue,
        };
        // The kernel wants the rights over the user namespace that the filesystem belongs to.
        bail!("/mounts/{index}/{field}: id-mapped mounts are not supported for rootless containers");
    }
    if !namespaces.makes(libc::CLONE_NEWUSER) {
        return Ok(());
    }
    if maps.uids.is_empty() {
        bail!("/linux/uidMappings: rootless containers requires at least one UID mapping");
    }
    if maps.gids.is_empty() {
        bail!("/linux/gidMappings: rootless containers requires at least one GID mapping");
    }
    // One group is the caller's own, which is mapped without newgidmap: the kernel then wants setgroups(2) denied.
    let one_group = matches!(maps.gids[..], [ids::Range { count: 1, .. }]);
    let groups = spec.process().as_ref().and_then(|process| process.user().additional_gids().as_ref());
    if one_group && groups.is_some_and(|groups| !groups.is_empty()) {
        bail!("/process/user/additionalGids: {NO_GROUPS}");
    }
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        for option in mount.options().iter().flatten() {
            let (list, kind, id) = match option.split_once('=') {
                Some(("uid", id)) => (&maps.uids, "uid", id),
                Some(("gid", id)) => (&maps.gids, "gid", id),
                _ => continue,
            };
            // What is not a number is the filesystem's business.
            let Ok(id) = id.parse::<u32>() else { continue };
            ids::outside(list, id)
                .with_context(|| format!("user namespaces enabled, but no mapping found for {kind} {id}"))
                .with_context(|| {
                    format!(
                        "/mounts/{index}/options: cannot specify {option} mount option for rootless container"
                    )
                })?;
        }
    }
    Ok(())
}
