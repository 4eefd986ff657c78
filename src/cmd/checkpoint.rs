//! `checkpoint`: saves a running container to files by CRIU, and removes it unless it is to run on.

use super::delete;
use crate::bundle;
use crate::cli::{self, Global};
use crate::criu::message::{self, CgroupMode, Features, Kind, Options};
use crate::criu::session::{Session, Surroundings};
use crate::criu::{self, Directories, external, mounts};
use crate::exit::ExitCode;
use crate::notify;
use crate::plan;
use crate::state::{State, Status, Store};
use crate::sys::fs;
use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, fcntl};
use oci_spec::runtime::Spec;
use std::path::{Path, PathBuf};

/// CRIU's log, in the work directory; containerd's shim looks for this name.
const LOG: &str = "dump.log";
/// The first CRIU that can be asked for its version.
const OLDEST: i32 = 30000;

/// Saves the container.
pub fn checkpoint(global: &Global, args: cli::Checkpoint) -> Result<ExitCode> {
    // Before this process opens anything under that number.
    let status_fd = args.status_fd.filter(|_| args.criu.lazy_pages);
    if let Some(fd) = status_fd {
        check_status_fd(fd)?;
    }
    let store = Store::new(global.root.as_deref())?;
    let (dir, state) = store.load(&args.id)?;
    let status = state.status(&dir)?.0;
    if !matches!(status, Status::Running | Status::Paused) {
        bail!("Container cannot be checkpointed in {} state", status.word());
    }
    let mut spec: Spec = bundle::read_json(&state.bundle.join("config.json"))?;
    if dir.has_notify_directory() {
        // `create` added it to what the bundle says.
        notify::add_to(&mut spec, &store.path_of(&args.id)?)?;
    }
    let mut options = options(&args.criu)?;
    let images = image_path(&args.criu)?;
    let mut session = Session::start(&Surroundings::default())?;
    session.require(OLDEST, "checkpoint")?;
    criu::make(&images, true)?;
    let directories = Directories::open(&images, args.criu.work_path.as_deref())?;
    directories.set(&mut options);
    options.parent = parent(&images, args.parent_path.as_deref())?;
    // Only what changes after this dump has to be in the next one.
    options.track_memory = options.parent.is_some();

    options.log_file = LOG;
    options.pid = Some(state.pid);
    options.root = criu::bytes(&state.rootfs);
    options.leave_running = args.leave_running;
    options.tcp_skip_in_flight = args.tcp_skip_in_flight;
    options.link_remap = args.link_remap;
    options.page_server = args.page_server.as_deref().map(page_server).transpose()?;
    options.config_file = criu::config_file(&spec);
    options.freeze_cgroup = state.cgroup.hierarchy("freezer").map(|hierarchy| hierarchy.dir());
    let lazy = args.criu.lazy_pages;
    let features = Features { memory_tracking: args.pre_dump, lazy_pages: lazy };
    if features != Features::default() {
        session.require_features(features)?;
    }
    // Later versions tell by a notification.
    options.status_fd = status_fd.filter(|_| !session.is_at_least(31500));
    name_what_is_outside(&spec, &state, &mut options, &session, args.pre_dump)?;
    if !args.pre_dump {
        external::write_descriptors(state.pid, &state.cgroup.procs()?, &images)?;
    }

    let kind = if args.pre_dump { Kind::PreDump } else { Kind::Dump };
    let request = message::request(kind, &options);
    session.work(kind, &request, &directories.logs.join(LOG), |step, _, _| {
        if step == "status-ready"
            && let Some(fd) = status_fd
        {
            fs::write_once(fs::inherited(fd), &[0]).context("write to --status-fd")?;
            // Whoever waits for its end must not wait for ours.
            drop(fs::adopt(fd));
        }
        // Networks are the engine's: there is nothing for us to lock.
        Ok(())
    })?;
    if !args.pre_dump && !args.leave_running {
        // The container is saved: what cannot be removed is no failure of that.
        if let Err(error) = delete::destroy(dir, &state, true) {
            crate::log::warn(format_args!("remove the container: {error:#}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The options that both directions share.
pub fn options(args: &cli::Criu) -> Result<Options> {
    if let Some(other) = args.empty_ns.iter().find(|name| *name != "network") {
        bail!("--empty-ns: namespace {other:?} is not supported, only \"network\"");
    }
    Ok(Options {
        tcp_established: args.tcp_established,
        external_unix_sockets: args.ext_unix_sk,
        shell_job: args.shell_job,
        file_locks: args.file_locks,
        auto_dedup: args.auto_dedup,
        lazy_pages: args.lazy_pages,
        cgroups: CgroupMode::parse(&args.manage_cgroups_mode).with_context(|| {
            format!(
                "invalid manage-cgroups-mode value {:?}: soft, full, strict or ignore",
                args.manage_cgroups_mode
            )
        })?,
        // Interfaces and their addresses are the engine's, before as after.
        empty_namespaces: libc::CLONE_NEWNET,
        ..Options::default()
    })
}

/// The directory of the images, absolute.
pub fn image_path(args: &cli::Criu) -> Result<PathBuf> {
    super::absolute(args.image_path.as_deref().unwrap_or(Path::new("checkpoint")))
}

fn parent(images: &Path, parent: Option<&Path>) -> Result<Option<Vec<u8>>> {
    let Some(parent) = parent else { return Ok(None) };
    if parent.is_absolute() {
        bail!("--parent-path must be relative");
    }
    let real = images.join(parent);
    let kind = std::fs::metadata(&real)
        .with_context(|| format!("invalid --parent-path: stat {}", real.display()))?;
    if !kind.is_dir() {
        bail!("invalid --parent-path: {}: not a directory", real.display());
    }
    Ok(Some(criu::bytes(parent)))
}

/// `ADDRESS:PORT`, an IPv6 address in brackets.
fn page_server(text: &str) -> Result<(String, i32)> {
    let (address, port) = text.rsplit_once(':').unwrap_or_default();
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if address.is_empty() || port.is_empty() {
        bail!("Use --page-server ADDRESS:PORT to specify page server");
    }
    let port: u16 = port.parse().context("Invalid port number")?;
    Ok((address.to_owned(), port.into()))
}

fn check_status_fd(fd: i32) -> Result<()> {
    if fd < 3 || !fs::is_open(fd) {
        bail!("invalid --status-fd argument {fd}: not an open descriptor beyond 2");
    }
    let flags = fcntl(fs::inherited(fd), FcntlArg::F_GETFL)
        .with_context(|| format!("invalid --status-fd argument {fd}"))?;
    if flags & libc::O_ACCMODE == libc::O_RDONLY {
        bail!("invalid --status-fd argument {fd}: not writable");
    }
    Ok(())
}

/// Namespaces and mounts that are not the container's own.
fn name_what_is_outside(
    spec: &Spec,
    state: &State,
    options: &mut Options,
    session: &Session,
    pre_dump: bool,
) -> Result<()> {
    let linux = spec.linux().as_ref().context("/linux: is required")?;
    let namespaces = plan::namespaces::compile(linux)?;
    if !namespaces.join.is_empty() {
        session.require(31500, "checkpoint of a container in a namespace of somebody else")?;
    }
    external::name_namespaces(&namespaces, options)?;
    if pre_dump {
        return Ok(());
    }
    let list = plan::mounts::compile(
        spec.mounts().as_deref().unwrap_or_default(),
        &state.bundle,
        &state.rootfs,
        &namespaces,
    )?;
    let masks = linux.masked_paths().iter().flatten().map(|path| plan::c_string(path, "/linux/maskedPaths"));
    let masks: Vec<_> = masks.collect::<Result<_>>()?;
    let cgroups = mounts::cgroup_binds(&list, &namespaces, &state.cgroup)?;
    options.external_mounts = mounts::to_dump(&list, &masks, &cgroups, state.pid)?;
    options.external_mounts.extend(device_mounts(spec)?);
    Ok(())
}

/// Device nodes may be mounts (in a user namespace): they are the host's on both sides.
pub fn device_mounts(spec: &Spec) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let linux = spec.linux().as_ref().context("/linux: is required")?;
    let devices = plan::devices::compile(linux, spec.mounts().as_deref().unwrap_or_default())?;
    let nodes = devices.map(|devices| devices.nodes).unwrap_or_default();
    Ok(nodes.iter().map(|node| (node.path.to_bytes().to_vec(), node.path.to_bytes().to_vec())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_servers() {
        assert_eq!(page_server("1.2.3.4:5").unwrap(), ("1.2.3.4".to_owned(), 5));
        assert_eq!(page_server("[::1]:27277").unwrap(), ("::1".to_owned(), 27277));
        for bad in ["", ":1", "a:", "host", "a:b", "a:70000"] {
            assert!(page_server(bad).is_err(), "{bad}");
        }
    }
}
