//! The log: `--log`, `--log-format` and `--debug`, one write(2) a line.
//!
//! Engines read the log file after a failure: the shim takes the last object of level `error`, Podman parses the whole
//! file as one object. So there is exactly one error line for a failed command and none for a successful one, and
//! in the JSON format nothing below an error is written unless `--debug` asks for it.
//!
//! Only the parent logs; nothing here may be called between clone and exec. Called by `main` and the commands.

use crate::time;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `time="..." level=error msg="..."`, as logrus prints to a file.
    #[default]
    Text,
    /// `{"level":"error","msg":"...","time":"..."}`.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Debug,
    Warning,
    Error,
}

impl Level {
    /// The word go's logrus uses: the shim and Podman compare it.
    fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

struct Log {
    /// None: stderr.
    file: Option<File>,
    format: Format,
    /// Lower levels are not written.
    from: Level,
}

static LOG: OnceLock<Log> = OnceLock::new();
/// What counts until [`init`]: the command line is not understood yet.
const BEFORE_INIT: Log = Log { file: None, format: Format::Text, from: Level::Warning };

/// Sends all later lines to `path` (stderr if `None`). The file is opened at once, while paths still mean what the
/// caller meant: a command may enter other namespaces later.
///
/// # Errors
/// The path cannot be opened for appending, is a symbolic link, or is no file, fifo or character device.
pub fn init(path: Option<&Path>, format: Format, debug: bool) -> Result<()> {
    let file = match path {
        Some(path) => {
            Some(File::from(open_log(path).with_context(|| format!("open log file {}", path.display()))?))
        }
        None => None,
    };
    let from = match (debug, format) {
        (true, _) => Level::Debug,
        (false, Format::Text) => Level::Warning,
        (false, Format::Json) => Level::Error,
    };
    // A second call would be a mistake in `main`; the first log stays.
    let _ = LOG.set(Log { file, format, from });
    Ok(())
}

/// The message of a failed command: to the log and, if that is a file, to stderr too, because engines match phrases
/// in either.
pub fn error(message: impl Display) {
    let log = current();
    write(log, Level::Error, &message);
    if log.file.is_some() {
        // Nowhere is left to report that stderr is closed.
        let _ = io::stderr().write_all(format!("{message}\n").as_bytes());
    }
}

/// The same, but on stderr without the log's own form.
pub fn error_bare(message: impl Display) {
    let log = current();
    if log.file.is_some() {
        write(log, Level::Error, &message);
    }
    // Nowhere is left to report that stderr is closed.
    let _ = io::stderr().write_all(format!("{message}\n").as_bytes());
}

/// Something the user should know although the command goes on.
pub fn warn(message: impl Display) {
    write(current(), Level::Warning, &message);
}

/// Something `--debug` shows. Costs nothing else but the call: give it `format_args!`.
pub fn debug(message: impl Display) {
    write(current(), Level::Debug, &message);
}

fn current() -> &'static Log {
    LOG.get().unwrap_or(&BEFORE_INIT)
}

fn write(log: &Log, level: Level, message: &dyn Display) {
    if level < log.from {
        return;
    }
    let (secs, _) = time::now();
    let line = line(log.format, level, &message.to_string(), &time::rfc3339(secs, 0));
    // A full disk or a reader that went away must not change what the command does.
    let _ = match &log.file {
        Some(file) => { file }.write_all(line.as_bytes()),
        None => io::stderr().write_all(line.as_bytes()),
    };
}

/// One whole line, so that the lines of runtimes that share a log do not mix.
fn line(format: Format, level: Level, message: &str, time: &str) -> String {
    match format {
        Format::Text => format!("time=\"{time}\" level={} msg={}\n", level.name(), quote(message)),
        Format::Json => {
            // A `Value` string cannot fail to serialize.
            let message = serde_json::Value::from(message);
            format!("{{\"level\":\"{}\",\"msg\":{message},\"time\":\"{time}\"}}\n", level.name())
        }
    }
}

/// `message` as logrus prints a value: bare if it is made of harmless characters, else quoted as Go quotes strings.
fn quote(message: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if message.chars().all(bare) {
        return message.to_owned();
    }
    let mut quoted = String::with_capacity(message.len() + 8);
    quoted.push('"');
    for c in message.chars() {
        // Writing to a `String` cannot fail.
        let _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            '\x07' => write!(quoted, "\\a"),
            '\x08' => write!(quoted, "\\b"),
            '\x0b' => write!(quoted, "\\v"),
            '\x0c' => write!(quoted, "\\f"),
            '\n' => write!(quoted, "\\n"),
            '\r' => write!(quoted, "\\r"),
            '\t' => write!(quoted, "\\t"),
            c if c.is_ascii_control() => write!(quoted, "\\x{:02x}", c as u32),
            c if c.is_control() => write!(quoted, "\\u{:04x}", c as u32),
            c => write!(quoted, "{c}"),
        };
    }
    quoted.push('"');
    quoted
}

fn open_log(path: &Path) -> Result<OwnedFd> {
    // Symbolic links of the system that callers do use as log files; the descriptor itself is meant.
    for (name, stream) in [("/dev/stderr", io::stderr().as_fd()), ("/dev/stdout", io::stdout().as_fd())] {
        if path == Path::new(name) {
            return Ok(stream.try_clone_to_owned()?);
        }
    }
    // A link that somebody else put where the log should be must not send the lines elsewhere (NOFOLLOW), and a fifo
    // without a reader must not hang the runtime (NONBLOCK).
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NOFOLLOW;
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    // musl's open(2) would set close-on-exec a second time.
    let fd = match openat(AT_FDCWD, path, flags, Mode::from_bits_truncate(0o644)) {
        Err(Errno::ELOOP) => bail!("the log file must not be a symbolic link"),
        Err(Errno::ENXIO) => bail!("nobody reads from it"),
        opened => opened?,
    };
    let kind = SFlag::from_bits_truncate(fstat(&fd)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFIFO || kind == SFlag::S_IFCHR {
        // From here on a slow reader is waited for; lines are not lost.
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    } else if kind != SFlag::S_IFREG {
        bail!("not a file, fifo or character device");
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::open;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    const TIME: &str = "2026-11-21T09:56:06Z";

    /// A new directory that is removed with its content.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("naru-log-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn text_lines_are_quoted_as_runc_prints_them() {
        // The right sides were printed by runc 1.3.6, or by Go's strconv.Quote for characters no command line holds.
        for (message, printed) in [
            ("container does not exist", "\"container does not exist\""),
            ("runc: \"create\" requires", "\"runc: \\\"create\\\" requires\""),
            ("EOF", "EOF"),
            ("a/b-c.d_e@f^g+h", "a/b-c.d_e@f^g+h"),
            ("a=b", "\"a=b\""),
            ("", ""),
            ("a\nb\tc\\d\x07\x1b[0m\x7f", "\"a\\nb\\tc\\\\d\\a\\x1b[0m\\x7f\""),
            ("größe \u{85}", "\"größe \\u0085\""),
        ] {
            assert_eq!(
                line(Format::Text, Level::Error, message, TIME),
                format!("time=\"{TIME}\" level=error msg={printed}\n")
            );
        }
    }

    #[test]
    fn json_lines_have_the_keys_engines_read() {
        // containerd's shim and Podman decode level, msg and time.
        let line = line(Format::Json, Level::Warning, "a \"b\"\n\u{1b}", TIME);
        assert_eq!(
            line,
            format!("{{\"level\":\"warning\",\"msg\":\"a \\\"b\\\"\\n\\u001b\",\"time\":\"{TIME}\"}}\n")
        );
    }

    #[test]
    fn appends_to_a_file_with_mode_644() {
        let dir = Scratch::new("append");
        let path = dir.0.join("log.json");
        for _ in 0..2 {
            let log =
                Log { file: Some(open_log(&path).unwrap().into()), format: Format::Json, from: Level::Error };
            write(&log, Level::Warning, &"not this");
            write(&log, Level::Error, &"this");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.starts_with("{\"level\":\"error\",\"msg\":\"this\",\"time\":\"2"), "{text}");
        let stat = nix::sys::stat::stat(&path).unwrap();
        assert_eq!(stat.st_mode & 0o777 & !0o644, 0);
    }

    #[test]
    fn refuses_links_directories_and_fifos_nobody_reads() {
        let dir = Scratch::new("refuse");
        let (link, fifo) = (dir.0.join("link"), dir.0.join("fifo"));
        symlink(dir.0.join("canary"), &link).unwrap();
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        for (path, phrase) in [
            (&link, "must not be a symbolic link"),
            (&fifo, "nobody reads"),
            (&dir.0, "EISDIR"),
            (&dir.0.join("no/such"), "ENOENT"),
        ] {
            let error = open_log(path).unwrap_err().to_string();
            assert!(error.contains(phrase), "{}: {error}", path.display());
        }
        assert!(!dir.0.join("canary").exists());
    }

    #[test]
    fn a_fifo_with_a_reader_gets_blocking_writes() {
        let dir = Scratch::new("fifo");
        let fifo = dir.0.join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let _reader = open(&fifo, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).unwrap();
        let writer = open_log(&fifo).unwrap();
        let flags = OFlag::from_bits_truncate(fcntl(&writer, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
    }
}
