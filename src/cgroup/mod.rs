//! stub
use anyhow::Result;
use crate::init::CgroupView;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ffi::CString;
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub struct Record { path: String }
pub struct Plan { path: String }
pub struct Live { dir: OwnedFd, path: String }
pub fn plan(_linux: &oci_spec::runtime::Linux, id: &str, _systemd: bool) -> Result<Plan> { Ok(Plan { path: format!("/sys/fs/cgroup/{id}") }) }
impl Plan {
    pub fn record(&self) -> Record { Record { path: self.path.clone() } }
    pub fn create(&self) -> Result<Live> {
        std::fs::create_dir(&self.path)?;
        let dir = crate::sys::fs::open(&CString::new(self.path.clone())?, libc::O_PATH | libc::O_DIRECTORY, 0)?;
        Ok(Live { dir, path: self.path.clone() })
    }
}
impl Live {
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> { Some(self.dir.as_fd()) }
    pub fn join_files(&self, into: bool) -> Result<Vec<OwnedFd>> {
        if into { return Ok(vec![]); }
        Ok(vec![crate::sys::fs::openat(self.dir.as_fd(), c"cgroup.procs", libc::O_WRONLY, 0)?])
    }
    pub fn view(&self) -> Result<CgroupView> { Ok(CgroupView::Unified { own: CString::new(self.path.clone())? }) }
    pub fn load_devices(&self) -> Result<()> { Ok(()) }
    pub fn was_oom_killed(&self) -> bool { false }
}
impl Record {
    pub fn procs(&self) -> Result<Vec<i32>> { Ok(std::fs::read_to_string(format!("{}/cgroup.procs", self.path))?.lines().filter_map(|l| l.parse().ok()).collect()) }
    pub fn kill_all(&self, _sig: i32) -> Result<()> { Ok(()) }
    pub fn is_frozen(&self) -> Result<bool> { Ok(false) }
    pub fn thaw_killed(&self) -> Result<()> { Ok(()) }
    pub fn remove(&self) -> Result<()> { Ok(std::fs::remove_dir(&self.path)?) }
}

pub struct Entry { pub clone_into: Option<OwnedFd>, pub files: Vec<OwnedFd>, pub fallback: Vec<OwnedFd> }
impl Record { pub fn enter(&self, _pid: i32, _sub: &[String]) -> Result<Entry> {
 Ok(Entry { clone_into: Some(crate::sys::fs::open(&CString::new(self.path.clone())?, libc::O_PATH | libc::O_DIRECTORY, 0)?), files: vec![], fallback: vec![] }) } }
