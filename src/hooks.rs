//! Runs one hook: state on stdin, environment, deadline, bounded output for the error.
//!
//! Called by the runtime (prestart, createRuntime, poststart, poststop) and by the init stage (createContainer,
//! startContainer). A hook gets descriptors 0 to 2 only and its own process group, which a timeout kills as a whole.

use crate::sys::{Errno, process as sysproc};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::Hook;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How much of a hook's stdout and of its stderr an error quotes, bytes.
const OUTPUT_MAX: usize = 400;
/// How often one look at an output reads: who writes without end must not keep from the deadline and the hook's end.
const READS: usize = 16;

/// What stays the same in the state that hooks read.
pub struct HookState {
    /// `ociVersion`.
    pub oci_version: String,
    /// Container id.
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: String,
    /// `annotations`.
    pub annotations: std::collections::HashMap<String, String>,
}

/// The state of a container as runtime.md "State" writes it.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateNow<'a> {
    /// `ociVersion`.
    pub oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'a str,
    #[serde(skip_serializing_if = "std::collections::HashMap::is_empty")]
    annotations: &'a std::collections::HashMap<String, String>,
}

fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

impl HookState {
    /// The state with this status and pid.
    pub fn with<'a>(&'a self, status: &'a str, pid: i32) -> StateNow<'a> {
        StateNow {
            oci_version: &self.oci_version,
            id: &self.id,
            status,
            pid,
            bundle: &self.bundle,
            annotations: &self.annotations,
        }
    }

    /// The same as JSON.
    pub fn json(&self, status: &str, pid: i32) -> Vec<u8> {
        // Strings and numbers always serialize.
        serde_json::to_vec(&self.with(status, pid)).unwrap_or_default()
    }
}

/// Runs one hook of the runtime's to its end, in the directory of the bundle, if that is still there. The error says how it
/// ended and what it printed, in runc's words.
pub fn run(hook: &Hook, state: &[u8], bundle: &Path) -> Result<(), String> {
    run_prepared(hook, state, |command| {
        if bundle.is_dir() {
            command.current_dir(bundle);
        }
    })
}

/// The same for a hook that has more of its own than the configuration says. What `prepare` sets in the environment
/// counts only for a hook without `env`.
pub fn run_prepared(hook: &Hook, state: &[u8], prepare: impl FnOnce(&mut Command)) -> Result<(), String> {
    let mut command = Command::new(hook.path());
    prepare(&mut command);
    if let Some((name, args)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(args);
    }
    // Without `env` the hook has the runtime's own, as in runc and crun; those of startContainer get the program's by `prepare`.
    if let Some(env) = hook.env() {
        command.env_clear();
        command.envs(env.iter().filter_map(|entry| entry.split_once('=')));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| match error.raw_os_error() {
        Some(errno) => {
            format!("exec {}: {}", hook.path().display(), crate::sys::words(Errno::from_raw(errno)))
        }
        None => format!("exec {}: {error}", hook.path().display()),
    })?;
    let deadline = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).filter(|&s| s > 0);
    // One that the clock cannot show never comes.
    let deadline = deadline.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let (status, stdout, stderr) = match attend(&mut child, state, deadline) {
        Ok(end) => end,
        Err(error) => {
            kill_group(child.id());
            // It may have left its group.
            let _ = child.kill();
            // The hook is gone by now; its status adds nothing to the error.
            let _ = child.wait();
            return Err(error);
        }
    };
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let core = if status.core_dumped() { " (core dumped)" } else { "" };
            format!("signal: {}{core}", crate::sys::signal_words(signal))
        }
        (None, None) => "unknown status".into(),
    };
    Err(format!("{how}, stdout: {stdout}, stderr: {stderr}"))
}

/// Feeds stdin, collects output and waits, until the hook itself has ended: what it leaves behind may keep its pipes.
fn attend(
    child: &mut std::process::Child,
    state: &[u8],
    deadline: Option<Instant>,
) -> Result<(ExitStatus, String, String), String> {
    let words = |errno: Errno| crate::sys::words(errno);
    let pidfd = sysproc::pidfd_open(child.id() as i32).map_err(words)?;
    let mut stdin = child.stdin.take();
    let mut outputs = [(child.stdout.take().map(std::os::fd::OwnedFd::from), Vec::new()), (None, Vec::new())];
    outputs[1].0 = child.stderr.take().map(std::os::fd::OwnedFd::from);
    for fd in
        stdin.iter().map(AsFd::as_fd).chain(outputs.iter().filter_map(|(fd, _)| fd.as_ref().map(AsFd::as_fd)))
    {
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).map_err(words)?;
    }
    let mut sent = 0;
    loop {
        let timeout = match deadline {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err("timed out and was killed".into());
                }
                PollTimeout::try_from(left.min(Duration::from_secs(3600))).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let output_fds = outputs.iter().filter_map(|(fd, _)| fd.as_ref());
        fds.extend(output_fds.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        if let Some(stdin) = &stdin {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(words(errno)),
        }
        let ended = fds[0].any().unwrap_or(false);
        if let Some(pipe) = &mut stdin {
            match pipe.write(&state[sent..]) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // A hook that does not read its state is no failure.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => sent = state.len(),
                Err(error) => return Err(format!("write its state: {error}")),
            }
            if sent == state.len() {
                stdin = None;
            }
        }
        for (pipe, text) in &mut outputs {
            drain(pipe, text);
        }
        if ended {
            let status = child.wait().map_err(|error| error.to_string())?;
            let [(_, out), (_, err)] = outputs;
            return Ok((status, quote(&out), quote(&err)));
        }
    }
}

/// Reads of what is there, keeps the first part of the output and closes the pipe at its end. One look takes all that an
/// error quotes, if it is there; the rest is for the next one.
fn drain(pipe: &mut Option<std::os::fd::OwnedFd>, text: &mut Vec<u8>) {
    let mut buf = [0u8; 1024];
    for _ in 0..READS {
        let Some(fd) = pipe else { return };
        match crate::sys::fs::read(fd.as_fd(), &mut buf) {
            Ok(0) => *pipe = None,
            Ok(length) => {
                let room = OUTPUT_MAX.saturating_sub(text.len());
                text.extend_from_slice(&buf[..length.min(room)]);
            }
            Err(Errno::EAGAIN) => return,
            Err(_) => *pipe = None,
        }
    }
}

fn quote(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim_end().replace(['\n', '\r'], " ")
}

fn kill_group(pid: u32) {
    // The group may be gone already, which is what is wanted.
    let _ =
        nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(json: &str) -> Hook {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_hook_gets_the_state_and_its_own_environment() {
        let file = std::env::temp_dir().join(format!("naru-hook-{}", std::process::id()));
        let script = format!("cat > {0}; env >> {0}; echo $0 >> {0}", file.display());
        let hook = hook(&format!(
            r#"{{"path":"/bin/sh","args":["nosh","-c","{script}","arg"],"env":["ONLY=this"]}}"#
        ));
        run(&hook, b"{state}", Path::new("/")).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        assert!(
            text.starts_with("{state}") && text.contains("ONLY=this") && !text.contains("HOME="),
            "{text}"
        );
        assert!(text.ends_with("arg\n"));
    }

    #[test]
    fn a_failing_hook_tells_how() {
        let error = run(
            &hook(r#"{"path":"/bin/sh","args":["sh","-c","echo out; echo err >&2; exit 3"]}"#),
            b"",
            Path::new("/"),
        );
        assert_eq!(error.unwrap_err(), "exit status 3, stdout: out, stderr: err");
        let error = run(&hook(r#"{"path":"/does/not/exist"}"#), b"", Path::new("/")).unwrap_err();
        assert_eq!(error, "exec /does/not/exist: no such file or directory");
    }

    #[test]
    fn output_without_end_is_read_in_parts() {
        let (done, waiting) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (mut pipe, mut text) = (Some(std::fs::File::open("/dev/zero").unwrap().into()), Vec::new());
            drain(&mut pipe, &mut text);
            done.send((pipe.is_some(), text.len())).unwrap();
        });
        assert_eq!(waiting.recv_timeout(Duration::from_secs(10)), Ok((true, OUTPUT_MAX)));
    }

    #[test]
    fn a_hook_that_neither_reads_nor_ends_in_time_is_killed_with_its_children() {
        let big = vec![b'x'; 1 << 20];
        run(&hook(r#"{"path":"/bin/true","args":["true"]}"#), &big, Path::new("/")).unwrap();
        let start = Instant::now();
        let error = run(
            &hook(r#"{"path":"/bin/sh","args":["sh","-c","sleep 50 & sleep 50"],"timeout":1}"#),
            b"",
            Path::new("/"),
        );
        assert!(error.unwrap_err().contains("timed out"));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
