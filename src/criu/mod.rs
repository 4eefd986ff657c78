//! Checkpoint and restore by CRIU: its protocol, and what of a container comes from outside and is not in the images.
//!
//! The images have runc's form (names of mounts, namespaces and descriptors, `descriptors.json`), so that what one of
//! the two has saved the other can restore. Called by `cmd::checkpoint` and `cmd::restore`.

pub mod external;
pub mod message;
pub mod mounts;
pub mod protobuf;
pub mod session;

use anyhow::{Context, Result};
use oci_spec::runtime::Spec;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The annotation that names a configuration file for CRIU; empty: none.
const CONFIG_ANNOTATION: &str = "org.criu.config";
/// Where it is looked for without the annotation; engines and admins know it by runc's name.
const CONFIG_FILE: &str = "/etc/criu/runc.conf";

/// The directories of images and logs.
pub struct Directories {
    images: OwnedFd,
    work: Option<OwnedFd>,
    /// Path of the images.
    pub images_path: PathBuf,
    /// Path of the logs.
    pub logs: PathBuf,
}

impl Directories {
    /// Opens the images at `images` and makes `work` if it is missing.
    pub fn open(images: &Path, work: Option<&Path>) -> Result<Directories> {
        let work_dir = match work {
            Some(path) => {
                make(path, false)?;
                Some(open(path)?)
            }
            None => None,
        };
        Ok(Directories {
            images: open(images)?,
            work: work_dir,
            images_path: images.to_owned(),
            logs: work.unwrap_or(images).to_owned(),
        })
    }

    /// The directories as CRIU wants them: numbers in this process.
    pub fn set(&self, options: &mut message::Options) {
        options.images_dir = self.images.as_raw_fd();
        options.work_dir = self.work.as_ref().map(AsRawFd::as_raw_fd);
    }
}

/// Makes a directory for this user alone, unless it is there.
pub fn make(path: &Path, parents: bool) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(parents).mode(0o700).create(path);
    match made {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.with_context(|| format!("make directory {}", path.display())),
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    let name = crate::plan::c_path(path, "path")?;
    crate::sys::fs::open(&name, libc::O_RDONLY | libc::O_DIRECTORY, 0)
        .with_context(|| format!("open directory {}", path.display()))
}

/// The configuration file that CRIU is to read; one that is not there counts for nothing.
pub fn config_file(spec: &Spec) -> Option<Vec<u8>> {
    match spec.annotations().as_ref().and_then(|all| all.get(CONFIG_ANNOTATION)) {
        None => Some(CONFIG_FILE.into()),
        Some(path) => Some(path.as_bytes().to_owned()).filter(|path| !path.is_empty()),
    }
}

/// A path as CRIU takes it.
pub fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_wins_over_the_usual_file() {
        let spec = |annotations: &str| -> Spec {
            serde_json::from_str(&format!(r#"{{"ociVersion":"1.0.0","annotations":{{{annotations}}}}}"#))
                .unwrap()
        };
        assert_eq!(config_file(&spec("")).as_deref(), Some(&b"/etc/criu/runc.conf"[..]));
        assert_eq!(config_file(&spec(r#""org.criu.config":"/x""#)).as_deref(), Some(&b"/x"[..]));
        assert_eq!(config_file(&spec(r#""org.criu.config":"""#)), None);
    }
}
