//! CRIU's messages (`rpc.proto` of CRIU): the requests this program makes, and what it looks at in the answers.
//!
//! Pure data; called by `session`, `cmd::checkpoint` and `cmd::restore`.

use super::protobuf::{Malformed, Reader, Value, Writer};

/// `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Kind {
    /// Checkpoint.
    Dump = 1,
    /// Restore.
    Restore = 2,
    /// Memory only, the processes run on.
    PreDump = 4,
    /// A step of a dump or restore that waits for us.
    Notify = 6,
    /// What this kernel and CRIU can do.
    FeatureCheck = 9,
    /// CRIU's version.
    Version = 10,
}

impl Kind {
    /// CRIU's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Dump => "DUMP",
            Kind::Restore => "RESTORE",
            Kind::PreDump => "PRE_DUMP",
            Kind::Notify => "NOTIFY",
            Kind::FeatureCheck => "FEATURE_CHECK",
            Kind::Version => "VERSION",
        }
    }
}

/// `criu_opts`. Descriptors are numbers in this process, but those of `inherit` are numbers in CRIU's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Directory of the images.
    pub images_dir: i32,
    /// Directory of logs and statistics; none: that of the images.
    pub work_dir: Option<i32>,
    /// Log file, relative to the work directory.
    pub log_file: &'static str,
    /// Root of the tree to dump; on restore none.
    pub pid: Option<i32>,
    /// The container's root, a mount point.
    pub root: Vec<u8>,
    /// Path of an earlier image, relative to the images.
    pub parent: Option<Vec<u8>>,
    /// Note which memory changes from now on.
    pub track_memory: bool,
    /// Leave the processes running.
    pub leave_running: bool,
    /// Unix sockets with an end outside are allowed.
    pub external_unix_sockets: bool,
    /// Open TCP connections are allowed.
    pub tcp_established: bool,
    /// Leave out connections that are being made.
    pub tcp_skip_in_flight: bool,
    /// Restored connections are closed.
    pub tcp_close: bool,
    /// Link unlinked files back.
    pub link_remap: bool,
    /// The session leader and the terminal may be outside.
    pub shell_job: bool,
    /// Files are locked and stay so.
    pub file_locks: bool,
    /// Give space back in earlier images.
    pub auto_dedup: bool,
    /// Fetch memory when it is used.
    pub lazy_pages: bool,
    /// Use any path that leads to the same device.
    pub evasive_devices: bool,
    /// The restored tree becomes a child of this process.
    pub sibling: bool,
    /// Where pages go.
    pub page_server: Option<(String, i32)>,
    /// Namespaces that come back empty.
    pub empty_namespaces: i32,
    /// What to do with cgroups.
    pub cgroups: CgroupMode,
    /// Controller and path of the restored processes.
    pub cgroup_roots: Vec<(String, String)>,
    /// A cgroup whose freezer stops everything.
    pub freeze_cgroup: Option<String>,
    /// Mounts that are not saved: where they are, and on dump their name, on restore their source.
    pub external_mounts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Other resources that are not saved.
    pub external: Vec<String>,
    /// Namespaces to join: type, path.
    pub join: Vec<(&'static str, Vec<u8>)>,
    /// Descriptors that take the place of saved ones: its name, the number in CRIU.
    pub inherit: Vec<(String, i32)>,
    /// A configuration file that overrides all of this.
    pub config_file: Option<Vec<u8>>,
    /// `TYPE:NAME`.
    pub lsm_profile: Option<Vec<u8>>,
    /// Context for mounts that have one.
    pub lsm_mount_context: Option<Vec<u8>>,
    /// Gets a NUL byte when the page server is ready (CRIU before 3.15).
    pub status_fd: Option<i32>,
}

/// `criu_cg_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum CgroupMode {
    /// Leave cgroups alone.
    Ignore = 0,
    /// Restore those that are not there.
    Soft = 3,
    /// Restore all.
    Full = 4,
    /// Restore all; none may be there.
    Strict = 5,
    /// CRIU's choice.
    #[default]
    Default = 6,
}

impl CgroupMode {
    /// The words of `--manage-cgroups-mode`.
    pub fn parse(text: &str) -> Option<CgroupMode> {
        Some(match text {
            "" => CgroupMode::Default,
            "ignore" => CgroupMode::Ignore,
            "soft" => CgroupMode::Soft,
            "full" => CgroupMode::Full,
            "strict" => CgroupMode::Strict,
            _ => return None,
        })
    }
}

/// CRIU logs what a person needs to see why it failed.
const LOG_LEVEL: i64 = 4;

impl Options {
    fn write(&self, w: &mut Writer) {
        w.number(1, self.images_dir.into());
        if let Some(pid) = self.pid {
            w.number(2, pid.into());
        }
        w.switch(3, self.leave_running);
        w.switch(4, self.external_unix_sockets);
        w.switch(5, self.tcp_established);
        w.switch(6, self.evasive_devices);
        w.switch(7, self.shell_job);
        w.switch(8, self.file_locks);
        w.number(9, LOG_LEVEL);
        w.text(10, self.log_file.as_bytes());
        if let Some((address, port)) = &self.page_server {
            w.message(11, |w| {
                w.text(1, address.as_bytes());
                w.number(2, (*port).into());
            });
        }
        // Every step is told, so that hooks run and the state is kept at the right moment.
        w.switch(12, true);
        w.text(13, &self.root);
        w.text_if(14, self.parent.as_deref());
        w.switch(15, self.track_memory);
        w.switch(16, self.auto_dedup);
        if let Some(work_dir) = self.work_dir {
            w.number(17, work_dir.into());
        }
        w.switch(18, self.link_remap);
        for (key, value) in &self.external_mounts {
            w.message(23, |w| {
                w.text(1, key);
                w.text(2, value);
            });
        }
        // What said the same before field 34 was there.
        w.switch(24, true);
        for (controller, path) in &self.cgroup_roots {
            w.message(25, |w| {
                w.text(1, controller.as_bytes());
                w.text(2, path.as_bytes());
            });
        }
        w.switch(26, self.sibling);
        for (key, fd) in &self.inherit {
            w.message(27, |w| {
                w.text(1, key.as_bytes());
                w.number(2, (*fd).into());
            });
        }
        w.number(34, self.cgroups as i64);
        for external in &self.external {
            w.text(37, external.as_bytes());
        }
        w.number(38, self.empty_namespaces.into());
        for (kind, path) in &self.join {
            w.message(39, |w| {
                w.text(1, kind.as_bytes());
                w.text(2, path);
            });
        }
        w.text_if(44, self.freeze_cgroup.as_deref().map(str::as_bytes));
        w.switch(46, self.tcp_skip_in_flight);
        w.switch(48, self.lazy_pages);
        if let Some(fd) = self.status_fd {
            w.number(49, fd.into());
        }
        // The master of a terminal comes to us and goes to the console socket.
        w.switch(50, true);
        w.text_if(51, self.config_file.as_deref());
        w.switch(52, self.tcp_close);
        w.text_if(53, self.lsm_profile.as_deref());
        w.text_if(63, self.lsm_mount_context.as_deref());
    }
}

/// A dump, pre-dump or restore.
pub fn request(kind: Kind, options: &Options) -> Vec<u8> {
    let mut w = Writer::default();
    w.number(1, kind as i64);
    w.message(2, |w| options.write(w));
    w.into_bytes()
}

/// The answer to a notification: go on, or give up.
pub fn notified(success: bool) -> Vec<u8> {
    let mut w = Writer::default();
    w.number(1, Kind::Notify as i64);
    w.number(3, success.into());
    w.into_bytes()
}

/// Asks for the version; the same CRIU takes another request afterwards.
pub fn ask_version() -> Vec<u8> {
    let mut w = Writer::default();
    w.number(1, Kind::Version as i64);
    w.switch(4, true);
    w.into_bytes()
}

/// What CRIU can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The kernel can tell which memory has changed.
    pub memory_tracking: bool,
    /// Memory can be fetched when it is used.
    pub lazy_pages: bool,
}

/// Asks for these features; the same CRIU takes another request afterwards.
pub fn ask_features(features: Features) -> Vec<u8> {
    let mut w = Writer::default();
    w.number(1, Kind::FeatureCheck as i64);
    w.switch(4, true);
    w.message(5, |w| {
        w.switch(1, features.memory_tracking);
        w.switch(2, features.lazy_pages);
    });
    w.into_bytes()
}

/// `criu_resp`, as far as anything here looks at it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// `criu_req_type`.
    pub kind: i32,
    /// Did it work?
    pub success: bool,
    /// Step and pid of a notification.
    pub notify: Option<(String, i32)>,
    /// errno of a failure.
    pub errno: i32,
    /// CRIU's own words.
    pub message: String,
    /// What was asked for and is there.
    pub features: Features,
    /// Major, minor, sublevel as CRIU counts them: 40201 is 4.2.1.
    pub version: i32,
}

/// Reads an answer.
pub fn parse(bytes: &[u8]) -> Result<Response, Malformed> {
    let mut response = Response::default();
    each(bytes, |field, value| {
        match field {
            1 => response.kind = value.int(),
            2 => response.success = value.int() != 0,
            5 => {
                let notify = response.notify.get_or_insert_default();
                each(value.bytes(), |field, value| {
                    match field {
                        1 => notify.0 = text(value),
                        2 => notify.1 = value.int(),
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            7 => response.errno = value.int(),
            8 => each(value.bytes(), |field, value| {
                match field {
                    1 => response.features.memory_tracking = value.int() != 0,
                    2 => response.features.lazy_pages = value.int() != 0,
                    _ => {}
                }
                Ok(())
            })?,
            9 => response.message = text(value),
            10 => response.version = version(value.bytes())?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(response)
}

/// A build between two releases counts as the later one.
fn version(bytes: &[u8]) -> Result<i32, Malformed> {
    let (mut major, mut minor, mut sublevel, mut between) = (0i32, 0i32, 0i32, false);
    each(bytes, |field, value| {
        match field {
            1 => major = value.int().clamp(0, 1000),
            2 => minor = value.int().clamp(0, 98),
            3 => between = !value.bytes().is_empty(),
            4 => sublevel = value.int().clamp(0, 99),
            _ => {}
        }
        Ok(())
    })?;
    Ok(if between { major * 10000 + (minor + 1) * 100 } else { major * 10000 + minor * 100 + sublevel })
}

fn each<'a>(
    bytes: &'a [u8],
    mut take: impl FnMut(u32, Value<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut reader = Reader(bytes);
    while let Some(field) = reader.next() {
        let (field, value) = field?;
        take(field, value)?;
    }
    Ok(())
}

fn text(value: Value) -> String {
    String::from_utf8_lossy(value.bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses() {
        // type NOTIFY, success, notify { script "post-restore", pid 77 }
        let bytes = b"\x08\x06\x10\x01\x2a\x10\x0a\x0cpost-restore\x10\x4d";
        let response = parse(bytes).unwrap();
        assert_eq!(response.notify, Some(("post-restore".to_owned(), 77)));
        assert!(response.success && response.kind == Kind::Notify as i32);
        // type DUMP, no success, cr_errno 16
        let response = parse(b"\x08\x01\x10\x00\x38\x10").unwrap();
        assert_eq!((response.kind, response.success, response.errno), (1, false, 16));
        // type VERSION, success, version { 4, 2, sublevel 1 }
        let response = parse(b"\x08\x0a\x10\x01\x52\x06\x08\x04\x10\x02\x20\x01").unwrap();
        assert_eq!(response.version, 40201);
        // The same with a git id: something after 4.2.
        let response = parse(b"\x08\x0a\x10\x01\x52\x09\x08\x04\x10\x02\x1a\x03v4g").unwrap();
        assert_eq!(response.version, 40300);
        assert!(parse(b"\x2a\x10x").is_err());
    }

    #[test]
    fn requests() {
        assert_eq!(notified(false), b"\x08\x06\x18\x00");
        assert_eq!(ask_version(), b"\x08\x0a\x20\x01");
        assert_eq!(
            ask_features(Features { memory_tracking: true, lazy_pages: false }),
            b"\x08\x09\x20\x01\x2a\x02\x08\x01"
        );
        let options =
            Options { images_dir: 7, root: b"/r".into(), log_file: "dump.log", ..Default::default() };
        let bytes = request(Kind::Dump, &options);
        assert!(bytes.starts_with(b"\x08\x01\x12"));
        let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(has(b"\x52\x08dump.log") && has(b"\x6a\x02/r") && has(b"\x90\x02\x06"));
    }

    #[test]
    fn modes() {
        assert_eq!(CgroupMode::parse("soft"), Some(CgroupMode::Soft));
        assert_eq!(CgroupMode::parse(""), Some(CgroupMode::Default));
        assert_eq!(CgroupMode::parse("hard"), None);
    }
}
