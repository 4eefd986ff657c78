//! The acting half on the kernel this runs on, whatever its cgroups: v1, hybrid or v2. Needs root; makes cgroups below
//! `naru-test-PID` and removes them.

use super::*;
use crate::sys::{Errno, process};
use std::ffi::{CStr, CString};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A container's cgroup for one test; removed at its end with all that is in it.
struct Scene {
    linux: Linux,
    name: String,
}

impl Scene {
    /// None, and a word why, where this cannot be tested.
    fn new(name: &str, resources: &str) -> Option<Scene> {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP: needs root");
            return None;
        }
        let name = format!("naru-test-{}-{name}", std::process::id());
        let text = format!(r#"{{"cgroupsPath":"/{name}/below/c","resources":{resources}}}"#);
        Some(Scene { linux: serde_json::from_str(&text).unwrap(), name })
    }

    fn plan(&self) -> Result<Plan> {
        plan(&self.linux, "id", Options::default())
    }

    fn create(&self) -> Live {
        self.plan().unwrap().create().unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Nothing of this test is left in any hierarchy.
    fn is_gone(&self) -> bool {
        let plan = self.plan().unwrap();
        let top = |one: &Hierarchy| format!("{}/{}", one.mount, self.name);
        plan.record.hierarchies.iter().all(|one| !std::path::Path::new(&top(one)).exists())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let Ok(plan) = self.plan() else { return };
        let mut record = plan.record();
        for one in &mut record.hierarchies {
            one.path = self.name.clone();
        }
        let _ = record.kill_all(libc::SIGKILL);
        if let Err(error) = record.remove() {
            println!("left behind: {error:#}");
        }
    }
}

/// A process in the cgroup of a record.
struct Sleeper(Child);

impl Sleeper {
    fn new(record: &Record) -> Sleeper {
        let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        for one in &record.hierarchies {
            let path = format!("{}/cgroup.procs", one.dir());
            file::write_value(file::ABSOLUTE, &path, &child.id().to_string()).unwrap();
        }
        Sleeper(child)
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    fn ends_within(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if self.0.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SOON: Duration = Duration::from_secs(5);

fn is_v2(record: &Record) -> bool {
    record.version == Version::V2
}

fn error<T>(result: Result<T>) -> String {
    format!("{:#}", result.err().unwrap())
}

#[test]
fn a_cgroup_comes_and_goes() {
    let Some(scene) = Scene::new("life", "{}") else { return };
    let live = scene.create();
    let record = live.record();
    assert_eq!(live.clone_into().is_some(), record.version != Version::V1);
    let v1 = record.hierarchies.iter().filter(|one| !one.is_unified()).count();
    assert_eq!(live.join_files(true).unwrap().len(), v1);
    assert_eq!(live.join_files(false).unwrap().len(), record.hierarchies.len());
    live.load_devices().unwrap();
    assert!(!live.was_oom_killed());
    assert!(!record.is_frozen().unwrap());
    assert_eq!(record.procs().unwrap().len(), 0);
    let sleeper = Sleeper::new(record);
    assert_eq!(record.procs().unwrap(), [sleeper.pid()]);
    drop(sleeper);
    record.remove().unwrap();
    assert!(scene.is_gone());
    // Again, and for what is not there: no error.
    record.remove().unwrap();
    assert_eq!(record.procs().unwrap().len(), 0);
    assert!(!record.is_frozen().unwrap());
    record.thaw_killed().unwrap();
}

#[test]
fn a_stored_record_is_enough_for_later_commands() {
    let Some(scene) = Scene::new("store", r#"{"cpu":{"quota":5000}}"#) else { return };
    let Ok(live) = scene.plan().unwrap().create() else {
        println!("SKIP: no cpu controller");
        return;
    };
    let text = serde_json::to_string(live.record()).unwrap();
    let record: Record = serde_json::from_str(&text).unwrap();
    assert_eq!(record.limits.quota, 5000);
    let _sleeper = Sleeper::new(&record);
    record.kill_all(libc::SIGKILL).unwrap();
    record.remove().unwrap();
    // The parent is left alone by whoever has only read of it.
    assert!(!scene.is_gone());
}

#[test]
fn what_fails_leaves_nothing() {
    let Some(scene) = Scene::new(
        "fail",
        r#"{"pids":{"limit":5},"blockIO":{"throttleReadBpsDevice":[{"major":4000,"minor":1,"rate":1}]}}"#,
    ) else {
        return;
    };
    let plan = scene.plan().unwrap();
    let text = error(plan.create());
    assert!(text.starts_with("/linux/resources/"), "{text}");
    assert!(scene.is_gone());
}

#[test]
fn a_used_cgroup_is_refused_and_an_empty_one_is_taken() {
    let Some(scene) = Scene::new("reuse", "{}") else { return };
    let live = scene.create();
    let sleeper = Sleeper::new(live.record());
    assert_eq!(error(scene.plan().unwrap().create()), "container's cgroup is not empty: 1 process(es) found");
    drop(sleeper);
    live.record().freeze().unwrap();
    assert_eq!(error(scene.plan().unwrap().create()), "container's cgroup unexpectedly frozen");
    live.record().thaw().unwrap();
    live.load_devices().unwrap();
    let again = scene.create();
    // The old program is replaced, or two would have to agree.
    again.load_devices().unwrap();
    if let Some(dir) = again.clone_into().filter(|_| is_v2(again.record())) {
        assert_eq!(crate::sys::bpf::query_device_programs(dir, &mut [0; 8]), Ok(1));
    }
}

#[test]
fn frozen_processes_stand_still_and_die() {
    let Some(scene) = Scene::new("freeze", "{}") else { return };
    let live = scene.create();
    let record = live.record();
    let mut sleeper = Sleeper::new(record);
    record.freeze().unwrap();
    assert!(record.is_frozen().unwrap());
    // A signal that can be survived does not wake a paused container up.
    record.kill_all(libc::SIGUSR1).unwrap();
    assert!(record.is_frozen().unwrap());
    // v2 lets a frozen process die of any signal, v1 of none.
    assert_eq!(sleeper.ends_within(Duration::from_millis(50)), is_v2(record));
    record.thaw().unwrap();
    assert!(!record.is_frozen().unwrap());
    assert!(sleeper.ends_within(SOON));

    let mut sleeper = Sleeper::new(record);
    record.freeze().unwrap();
    let pidfd = process::pidfd_open(sleeper.pid()).unwrap();
    process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    record.thaw_killed().unwrap();
    assert!(sleeper.ends_within(SOON));

    let mut sleeper = Sleeper::new(record);
    record.freeze().unwrap();
    record.kill_all(libc::SIGKILL).unwrap();
    assert!(sleeper.ends_within(SOON));
}

#[test]
fn a_frozen_parent_is_not_a_paused_container() {
    let Some(scene) = Scene::new("parent", "{}") else { return };
    let live = scene.create();
    let mut parent = live.record().clone();
    for one in &mut parent.hierarchies {
        one.path = one.path.trim_end_matches("/c").to_string();
    }
    let mut sleeper = Sleeper::new(live.record());
    parent.freeze().unwrap();
    assert!(parent.is_frozen().unwrap());
    assert!(!live.record().is_frozen().unwrap());
    parent.thaw().unwrap();
    live.record().kill_all(libc::SIGTERM).unwrap();
    assert!(sleeper.ends_within(SOON));
}

#[test]
fn everything_below_is_killed_and_removed() {
    let Some(scene) = Scene::new("tree", "{}") else { return };
    let live = scene.create();
    let mut below = live.record().clone();
    for one in &mut below.hierarchies {
        one.path += "/sub";
        file::make_dir(&one.dir()).unwrap();
        if one.has("cpuset") {
            for name in ["cpuset.cpus", "cpuset.mems"] {
                let value = file::read_value(file::ABSOLUTE, &format!("{}/../{name}", one.dir())).unwrap();
                file::write_value(file::ABSOLUTE, &format!("{}/{name}", one.dir()), &value).unwrap();
            }
        }
        one.path += "/sub/..";
        one.path.truncate(one.path.len() - "/sub/..".len());
    }
    let (outer, inner) = (Sleeper::new(live.record()), Sleeper::new(&below));
    let mut pids = live.record().procs().unwrap();
    pids.sort();
    let mut expected = [outer.pid(), inner.pid()];
    expected.sort();
    assert_eq!(pids, expected);
    // The record's own directories end with the processes, which take their time: this waits.
    live.record().kill_all(libc::SIGKILL).unwrap();
    let reaper = std::thread::spawn(move || drop((outer, inner)));
    live.record().remove().unwrap();
    reaper.join().unwrap();
    assert!(scene.is_gone());
}

/// Makes directories of this name, each in the one before, unless they are there; a handle of the last.
fn nest(dir: &str, name: &CStr, depth: usize) -> std::os::fd::OwnedFd {
    let mut here = file::open_dir(file::ABSOLUTE, dir).unwrap();
    for _ in 0..depth {
        match nix::sys::stat::mkdirat(&here, name, nix::sys::stat::Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => panic!("{errno}"),
        }
        here = nix::fcntl::openat(
            &here,
            name,
            nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )
        .unwrap();
    }
    here
}

/// Two processes of a container, the second where `name` is `depth` times below its cgroup: both are seen, signalled, killed
/// and everything is removed.
fn nothing_below_is_missed(scene: Scene, name: &CStr, depth: impl Fn(&Hierarchy) -> usize) {
    let live = scene.create();
    let record = live.record();
    let nest_all = || {
        for one in &record.hierarchies {
            nest(&one.dir(), c"beside", 2);
            nest(&one.dir(), name, depth(one));
        }
    };
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        nest_all();
        let (outer, mut inner) = (Sleeper::new(record), Sleeper::new(record));
        let main = record.main().unwrap();
        let last = nest(&main.dir(), name, depth(main));
        file::write_value(last.as_fd(), "cgroup.procs", &inner.pid().to_string()).unwrap();
        assert_eq!(record.procs().unwrap(), [outer.pid(), inner.pid()]);
        record.kill_all(signal).unwrap();
        assert!(inner.ends_within(SOON));
        drop((outer, inner));
        for one in &record.hierarchies {
            below::remove(&one.dir()).unwrap();
            assert_eq!(std::fs::metadata(one.dir()).unwrap().nlink(), 2, "{}", one.dir());
        }
    }
    nest_all();
    record.end_and_remove(true).unwrap();
    assert!(scene.is_gone());
}

#[test]
fn a_name_below_may_be_any_bytes() {
    let Some(scene) = Scene::new("bytes", "{}") else { return };
    nothing_below_is_missed(scene, c"\xff", |_| 1);
}

#[test]
fn a_path_below_may_be_longer_than_the_kernel_takes() {
    let Some(scene) = Scene::new("long", "{}") else { return };
    let name = CString::new("x".repeat(250)).unwrap();
    nothing_below_is_missed(scene, &name, |_| 20);
}

#[test]
fn there_may_be_more_levels_than_descriptors() {
    let Some(scene) = Scene::new("deep", "{}") else { return };
    // On cgroup2 the kernel takes seconds to make so many.
    nothing_below_is_missed(scene, c"x", |one| if one.has("devices") { 2000 } else { 200 });
}

#[test]
fn what_has_frozen_itself_below_dies() {
    let Some(scene) = Scene::new("below", "{}") else { return };
    let live = scene.create();
    let record = live.record();
    let mut below = record.clone();
    if !is_v2(record) {
        below.hierarchies.retain(|one| one.has("freezer"));
    }
    let Some(one) = below.hierarchies.first_mut() else {
        println!("SKIP: no freezer");
        return;
    };
    nest(&one.dir(), c"x", 2);
    one.path += "/x/x";
    for all in [false, true] {
        let mut sleeper = Sleeper::new(record);
        let path = format!("{}/cgroup.procs", below.hierarchies[0].dir());
        file::write_value(file::ABSOLUTE, &path, &sleeper.pid().to_string()).unwrap();
        below.freeze().unwrap();
        if all {
            record.kill_all(libc::SIGKILL).unwrap();
        } else {
            let pidfd = process::pidfd_open(sleeper.pid()).unwrap();
            process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
            record.thaw_killed().unwrap();
        }
        assert!(sleeper.ends_within(SOON));
    }
}

#[test]
fn a_threaded_cgroup_is_killed() {
    let Some(scene) = Scene::new("threaded", "{}") else { return };
    let live = scene.create();
    let record = live.record();
    let Some(unified) = record.unified() else {
        println!("SKIP: no cgroup2");
        return;
    };
    if let Err(errno) =
        file::write_value(file::ABSOLUTE, &format!("{}/cgroup.type", unified.dir()), "threaded")
    {
        println!("SKIP: cgroup.type: {errno}");
        return;
    }
    let mut sleeper = Sleeper::new(record);
    record.kill_all(libc::SIGKILL).unwrap();
    assert!(sleeper.ends_within(SOON));
}

#[test]
fn a_process_enters_where_it_is_told() {
    let Some(scene) = Scene::new("enter", "{}") else { return };
    let live = scene.create();
    let record = live.record();
    let sleeper = Sleeper::new(record);
    let entry = record.enter(sleeper.pid(), &[]).unwrap();
    let v1 = record.hierarchies.iter().filter(|one| !one.is_unified()).count();
    assert_eq!(entry.files.len(), v1);
    assert_eq!(entry.clone_into.is_some(), record.version != Version::V1);
    assert_eq!(entry.fallback.len(), usize::from(record.version != Version::V1));

    let sub = |path: &str| record.enter(sleeper.pid(), &[path.to_string()]);
    assert!(error(sub("not-there")).contains("no such file or directory"));
    assert_eq!(error(sub("../x")), "bad sub cgroup path: ../x");
    for one in &record.hierarchies {
        file::make_dir(&format!("{}/sub", one.dir())).unwrap();
    }
    let entry = sub("/sub/").unwrap();
    assert_eq!(entry.files.len() + entry.fallback.len(), record.hierarchies.len());
    if is_v2(record) {
        assert_eq!(error(sub("cpu:sub")), "unknown controller cpu in --cgroup");
        // The container has moved: its init process tells where to.
        let mut moved = record.clone();
        moved.hierarchies[0].path += "/gone";
        let entry = moved.enter(sleeper.pid(), &[]).unwrap();
        let dir = nix::sys::stat::fstat(entry.clone_into.unwrap()).unwrap();
        let own = nix::sys::stat::fstat(live.clone_into().unwrap()).unwrap();
        assert_eq!(dir.st_ino, own.st_ino);
    } else {
        assert_eq!(sub("cpu,pids:sub").unwrap().files.len(), v1);
        assert_eq!(error(sub("hugetlbx:sub")), "unknown controller hugetlbx in --cgroup");
    }
}

/// Does the container have this controller?
fn has(record: &Record, controller: &str) -> bool {
    let Some(hierarchy) = record.hierarchy(controller) else { return false };
    let list = file::read_value(file::ABSOLUTE, &format!("{}/cgroup.controllers", hierarchy.dir()));
    !is_v2(record) || list.unwrap().split(' ').any(|name| name == controller)
}

/// The one file of a limit, by version.
fn limit(record: &Record, controller: &str, v1: &str, v2: &str) -> file::Result<String> {
    let name = if is_v2(record) { v2 } else { v1 };
    let dir = record.hierarchy(controller).ok_or(Errno::ENODEV)?.dir();
    file::read_value(file::ABSOLUTE, &format!("{dir}/{name}"))
}

#[test]
fn an_update_is_done_whole_or_not_at_all() {
    let Some(scene) = Scene::new("update", "{}") else { return };
    let live = scene.create();
    let mut record = live.record().clone();
    let resources = |text: &str| serde_json::from_str(text).unwrap();
    if ["pids", "cpu", "memory"].iter().any(|name| !has(&record, name)) {
        println!("SKIP: no pids, cpu or memory controller");
        return;
    }
    assert!(
        record
            .update(&resources(r#"{"pids":{"limit":50},"cpu":{"period":50000}}"#), |_| Ok(()))
            .unwrap()
            .is_empty()
    );
    record.update(&resources(r#"{"cpu":{"quota":25000}}"#), |_| Ok(())).unwrap();
    assert_eq!(limit(&record, "pids", "pids.max", "pids.max").unwrap(), "50");
    let quota = |record: &Record| limit(record, "cpu", "cpu.cfs_quota_us", "cpu.max").unwrap();
    assert_eq!(quota(&record), if is_v2(&record) { "25000 50000" } else { "25000" });

    let before = record.clone();
    let wrong = r#"{"pids":{"limit":60},"cpu":{"quota":30000,"burst":40000}}"#;
    assert!(
        error(record.update(&resources(wrong), |_| Ok(()))).starts_with("/linux/resources/cpu/burst: write")
    );
    assert_eq!(record, before);
    assert_eq!(limit(&record, "pids", "pids.max", "pids.max").unwrap(), "50");
    assert_eq!(quota(&record), if is_v2(&record) { "25000 50000" } else { "25000" });

    // Growing and shrinking pairs, each in the order that the kernel takes.
    for (memory, swap) in [(64, 128), (256, 512), (32, 64), (32, 32)] {
        let (memory, swap) = (memory << 20, swap << 20);
        record
            .update(&resources(&format!(r#"{{"memory":{{"limit":{memory},"swap":{swap}}}}}"#)), |_| Ok(()))
            .unwrap();
        let max = limit(&record, "memory", "memory.limit_in_bytes", "memory.max").unwrap();
        assert_eq!(max, memory.to_string());
        let expected = if is_v2(&record) { swap - memory } else { swap };
        match limit(&record, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max") {
            Ok(value) => assert_eq!(value, expected.to_string()),
            Err(errno) => println!("swap limit: {errno}"),
        }
    }
    record.update(&resources(r#"{"memory":{"limit":-1}}"#), |_| Ok(())).unwrap();
    for (quota, period) in [(500_000, 1_000_000), (1000, 2000), (900_000, 1_000_000)] {
        let text = format!(r#"{{"cpu":{{"quota":{quota},"period":{period},"burst":{quota}}}}}"#);
        record.update(&resources(&text), |_| Ok(())).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

#[test]
fn usage_is_read_from_the_kernel() {
    let Some(scene) = Scene::new("stats", "{}") else { return };
    let live = scene.create();
    let _sleeper = Sleeper::new(live.record());
    let stats = live.record().stats().unwrap();
    assert_eq!(stats.pids.current, 1);
    if is_v2(live.record()) {
        // v1 counts it with the next tick.
        assert!(std::path::Path::new(&format!("{}/cpu.stat", live.record().hierarchies[0].dir())).exists());
    } else {
        assert_eq!(stats.cpuset.mems.first(), has(live.record(), "cpuset").then_some(&0));
        assert_eq!(stats.memory.usage.limit > 1 << 40, has(live.record(), "memory"));
    }
    println!("{}", serde_json::to_string(&stats).unwrap());
    assert_eq!(live.record().oom_kills(), 0);
}

/// Prints the usage of `$NARU_TEST_CGROUP`, to compare with what another runtime prints for its container.
#[test]
#[ignore = "prints"]
fn usage_of_another_container() {
    let path = std::env::var("NARU_TEST_CGROUP").expect("NARU_TEST_CGROUP is a cgroupsPath");
    let linux: Linux = serde_json::from_str(&format!(r#"{{"cgroupsPath":"{path}"}}"#)).unwrap();
    let stats = plan(&linux, "id", Options::default()).unwrap().record().stats().unwrap();
    println!("\n{}", serde_json::to_string(&stats).unwrap());
}

#[test]
fn parents_that_vanish_are_made_again() {
    let Some(scene) = Scene::new("race", "{}") else { return };
    let plan = scene.plan().unwrap();
    let parents: Vec<String> =
        plan.record.hierarchies.iter().map(|one| format!("{}/{}/below", one.mount, scene.name)).collect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for parent in &parents {
                    let _ = file::remove_dir(file::ABSOLUTE, parent);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for _ in 0..50 {
            let made = scene.plan().unwrap().create().and_then(|live| live.record().remove());
            if let Err(error) = made {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("{error:#}");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// Where cgroups cannot be made, which `unshare -m` and read-only remounts of them make of any host.
#[test]
fn without_permission_a_rootless_container_has_no_cgroup() {
    let id = format!("naru-test-{}-rootless", std::process::id());
    let create = |text: &str, rootless: bool| {
        let linux: Linux = serde_json::from_str(text).unwrap();
        plan(&linux, &id, Options { rootless: Some(rootless), ..Options::default() })
            .and_then(|plan| plan.create())
    };
    if let Ok(live) = create("{}", false) {
        live.record().remove().unwrap();
        println!("SKIP: cgroups can be made here");
        return;
    }
    let live = create("{}", true).unwrap_or_else(|error| panic!("{error:#}"));
    let record = live.record();
    assert!(record.hierarchies.is_empty());
    assert!(live.clone_into().is_none());
    assert!(live.join_files(false).unwrap().is_empty());
    live.load_devices().unwrap();
    live.view().unwrap();
    record.remove().unwrap();
    record.thaw_killed().unwrap();
    assert!(!record.is_frozen().unwrap());
    for refused in [record.procs().map(drop), record.freeze(), record.stats().map(drop), record.kill_all(15)]
    {
        assert!(error(refused).starts_with("container has no cgroup"));
    }
    assert!(record.enter(1, &[]).unwrap().files.is_empty());
    // What was planned and never made can be removed.
    let text = format!(r#"{{"cgroupsPath":"/{id}"}}"#);
    plan(&serde_json::from_str(&text).unwrap(), &id, Options::default()).unwrap().record().remove().unwrap();

    assert!(error(create(&text, true)).starts_with("make cgroup /sys/fs/cgroup/"));
    let limited = error(create(r#"{"resources":{"pids":{"limit":5}}}"#, true));
    assert!(
        limited.starts_with(
            "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
        ) || limited.ends_with("cannot set pids limit: container could not join or create cgroup"),
        "{limited}"
    );
}

#[test]
fn views() {
    let hierarchy = |controllers: &str, mount: &str| Hierarchy {
        controllers: controllers.into(),
        mount: format!("/sys/fs/cgroup/{mount}"),
        path: "a/b".into(),
    };
    let record = |version, hierarchies| Record {
        version,
        driver: Driver::Cgroupfs,
        unit: None,
        hierarchies,
        limits: Limits::default(),
        made: Vec::new(),
    };
    let hybrid = record(
        Version::Hybrid,
        vec![
            hierarchy("cpu,cpuacct", "cpu,cpuacct"),
            hierarchy("name=systemd", "systemd"),
            hierarchy("freezer", "odd"),
            hierarchy("", "unified"),
        ],
    );
    let crate::init::CgroupView::Hierarchies(list) = hybrid.view().unwrap() else { panic!() };
    let text = |text: &std::ffi::CString| text.to_str().unwrap().to_string();
    let shown: Vec<String> = list
        .iter()
        .map(|one| {
            let links: Vec<_> = one.links.iter().map(text).collect();
            format!(
                "{} {} {} {}",
                text(&one.name),
                text(&one.controllers),
                text(&one.source),
                links.join(",")
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "cpu,cpuacct cpu,cpuacct /sys/fs/cgroup/cpu,cpuacct/a/b cpu,cpuacct",
            "systemd name=systemd /sys/fs/cgroup/systemd/a/b ",
            "odd freezer /sys/fs/cgroup/odd/a/b freezer",
        ]
    );
    let crate::init::CgroupView::Unified { own } = record(Version::V2, vec![]).view().unwrap() else {
        panic!()
    };
    assert_eq!(text(&own), "/sys/fs/cgroup");
}

#[test]
fn systemd_must_run() {
    if std::path::Path::new("/run/systemd/system").is_dir() {
        println!("SKIP: systemd runs here");
        return;
    }
    let options = Options { driver: Driver::Systemd, ..Options::default() };
    let text = error(plan(&Linux::default(), "id", options));
    assert_eq!(text, "systemd not running on this host, cannot use systemd cgroups manager");
}

#[test]
fn owners() {
    let spec = |namespaces: &str, options: &str, uid: u32, maps: &str| -> Spec {
        serde_json::from_str(&format!(
            r#"{{"ociVersion":"1.0.0","root":{{"path":"rootfs"}},
                "process":{{"user":{{"uid":{uid},"gid":0}},"cwd":"/","args":["x"]}},
                "mounts":[{{"destination":"/sys/fs/cgroup/","type":"cgroup","source":"cgroup","options":[{options}]}}],
                "linux":{{"namespaces":[{namespaces}],"uidMappings":[{maps}]}}}}"#
        ))
        .unwrap()
    };
    let owner = |spec: &Spec| {
        let linux = spec.linux().as_ref().unwrap();
        let maps = crate::plan::ids::Maps::compile(linux.uid_mappings().as_ref(), None, "/linux").unwrap();
        super::owner(spec, &maps)
    };
    let own = r#"{"type":"cgroup"}"#;
    let map = r#"{"containerID":0,"hostID":100000,"size":65536}"#;
    assert_eq!(owner(&spec(own, r#""rw""#, 1000, "")), Some(1000));
    assert_eq!(owner(&spec(own, "", 5, map)), Some(100_005));
    assert_eq!(owner(&spec(own, "", 65536, map)), None);
    assert_eq!(owner(&spec(own, r#""ro""#, 1000, "")), None);
    assert_eq!(owner(&spec(own, r#""ro","rw""#, 1000, "")), Some(1000));
    assert_eq!(owner(&spec("", "", 1000, "")), None);
    assert_eq!(owner(&spec(r#"{"type":"cgroup","path":"/proc/1/ns/cgroup"}"#, "", 1000, "")), None);
}

/// `cargo test --release -- --ignored --nocapture --test-threads=1 cgroup_costs`, best under `chrt -f 1` on v2.
#[test]
#[ignore = "measures"]
fn cgroup_costs() {
    let Some(scene) = Scene::new("costs", r#"{"devices":[{"allow":false,"access":"rwm"}]}"#) else { return };
    // The parents stay.
    for one in &scene.plan().unwrap().record.hierarchies {
        for path in [&scene.name, &format!("{}/below", scene.name)] {
            let _ = file::make_dir(&format!("{}/{path}", one.mount));
        }
        if one.has("cpuset") {
            let below = Hierarchy { path: format!("{}/below", scene.name), ..one.clone() };
            create::fill_cpuset(&below).unwrap();
        }
    }
    let mut times = vec![Vec::new(); 6];
    for _ in 0..200 {
        let mut at = Instant::now();
        let mut lap = |times: &mut Vec<Duration>| {
            times.push(at.elapsed());
            at = Instant::now();
        };
        let plan = scene.plan().unwrap();
        lap(&mut times[0]);
        let live = plan.create().unwrap();
        lap(&mut times[1]);
        let files = live.join_files(true).unwrap();
        lap(&mut times[2]);
        live.load_devices().unwrap();
        lap(&mut times[3]);
        let record = live.record().clone();
        drop((files, live));
        let at = Instant::now();
        record.remove().unwrap();
        times[4].push(at.elapsed());
        let at = Instant::now();
        serde_json::to_string(&record).unwrap();
        times[5].push(at.elapsed());
    }
    for (name, times) in
        ["plan", "create", "join files", "load devices", "remove", "store"].iter().zip(&mut times)
    {
        times.sort();
        println!("{name}: min {:?} median {:?}", times[0], times[times.len() / 2]);
    }
}
