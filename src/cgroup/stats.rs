//! Usage of a container's resources, in the shape that `events` prints: the data of runc's `stats` event.
//!
//! A file that a kernel, a controller or a rootless container does not have counts as zero or is left out, like there.

use super::file;
use super::record::{Hierarchy, Record};
use super::{Version, resources::is_zero};
use crate::sys::words;
use anyhow::{Result, anyhow};
use nix::errno::Errno;
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything. Times are in nanoseconds, sizes in bytes.
#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Stats {
    pub cpu: Cpu,
    pub cpuset: Cpuset,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: Blkio,
    pub hugetlb: BTreeMap<String, Entry>,
    /// Nothing here reads resctrl or network interfaces; readers expect the fields.
    pub intel_rdt: BTreeMap<String, String>,
    pub network_interfaces: Option<()>,
}

#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Cpu {
    pub usage: CpuUsage,
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Pressure stall information.
#[derive(Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Psi {
    pub some: Pressure,
    pub full: Pressure,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Pressure {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    pub usage: Limited,
    /// Memory and swap together, as on v1.
    pub swap: Limited,
    pub kernel: Limited,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Limited,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Limited {
    pub limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    pub failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// 0: none.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Hugepages of one size.
#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Entry {
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    pub failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<Device>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<Device>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_queue_recursive: Vec<Device>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<Device>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<Device>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<Device>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<Device>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One number of one block device.
#[derive(Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Device {
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// `cpuacct.stat` counts in these, whatever the kernel's own tick is.
const NS_PER_TICK: u64 = 10_000_000;
const NS_PER_US: u64 = 1000;

impl Record {
    /// Reads all there is.
    pub fn stats(&self) -> Result<Stats> {
        self.main()?;
        match self.version {
            Version::V2 => self.stats_v2(),
            Version::V1 | Version::Hybrid => self.stats_v1(),
        }
    }

    fn stats_v2(&self) -> Result<Stats> {
        let dir = Dir(self.hierarchies.first());
        let mut stats = Stats::default();
        let cpu = dir.table("cpu.stat")?;
        let us = |key: &str| cpu.get(key).copied().unwrap_or_default() * NS_PER_US;
        let count = |key: &str| cpu.get(key).copied().unwrap_or_default();
        stats.cpu.usage = CpuUsage {
            total: us("usage_usec"),
            kernel: us("system_usec"),
            user: us("user_usec"),
            ..Default::default()
        };
        stats.cpu.throttling = Throttling {
            periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled_time: us("throttled_usec"),
        };
        stats.cpu.psi = dir.psi("cpu.pressure")?;

        let memory = &mut stats.memory;
        memory.raw = dir.table("memory.stat")?;
        memory.cache = memory.raw.get("file").copied().unwrap_or_default();
        memory.usage = dir.limited("memory", ["current", "max", "peak"])?;
        let swap = dir.limited("memory.swap", ["current", "max", "peak"])?;
        // As on v1, where both are counted together; the peak of the sum is not known.
        memory.swap = Limited {
            limit: swap.limit.saturating_add(if swap.limit == u64::MAX { 0 } else { memory.usage.limit }),
            usage: swap.usage + memory.usage.usage,
            ..Default::default()
        };
        memory.psi = dir.psi("memory.pressure")?;

        stats.pids = match dir.number("pids.current")? {
            Some(current) => Pids { current, limit: dir.pids_max()? },
            None => Pids { current: self.procs()?.len() as u64, limit: 0 },
        };
        for line in dir.text("io.stat")?.lines() {
            io_line(line, &mut stats.blkio);
        }
        stats.blkio.psi = dir.psi("io.pressure")?;
        for size in page_sizes() {
            let prefix = format!("hugetlb.{size}");
            let usage = match dir.number(&format!("{prefix}.rsvd.current"))? {
                None => dir.number(&format!("{prefix}.current"))?,
                reserved => reserved,
            };
            let Some(usage) = usage else { continue };
            let events = dir.table(&format!("{prefix}.events"))?;
            let failcnt = events.get("max").copied().unwrap_or_default();
            stats.hugetlb.insert(size, Entry { usage, max: 0, failcnt });
        }
        Ok(stats)
    }

    fn stats_v1(&self) -> Result<Stats> {
        let dir = |controller: &str| Dir(self.hierarchy(controller));
        let mut stats = Stats::default();

        let account = dir("cpuacct");
        let ticks = account.table("cpuacct.stat")?;
        let ns = |key: &str| ticks.get(key).copied().unwrap_or_default() * NS_PER_TICK;
        let usage = &mut stats.cpu.usage;
        (usage.kernel, usage.user) = (ns("system"), ns("user"));
        usage.total = account.number("cpuacct.usage")?.unwrap_or_default();
        usage.percpu = numbers(&account.text("cpuacct.usage_percpu")?).collect();
        for line in account.text("cpuacct.usage_all")?.lines().skip(1) {
            let mut fields = numbers(line).skip(1);
            usage.percpu_user.extend(fields.next());
            usage.percpu_kernel.extend(fields.next());
        }
        let throttled = dir("cpu").table("cpu.stat")?;
        let count = |key: &str| throttled.get(key).copied().unwrap_or_default();
        stats.cpu.throttling = Throttling {
            periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled_time: count("throttled_time"),
        };

        let set = dir("cpuset");
        let flag =
            |name: &str| Ok::<_, anyhow::Error>(set.number(&format!("cpuset.{name}"))?.unwrap_or_default());
        stats.cpuset = Cpuset {
            cpus: ranges(&set.text("cpuset.cpus")?),
            cpu_exclusive: flag("cpu_exclusive")?,
            mems: ranges(&set.text("cpuset.mems")?),
            mem_hardwall: flag("mem_hardwall")?,
            mem_exclusive: flag("mem_exclusive")?,
            memory_migrate: flag("memory_migrate")?,
            memory_spread_page: flag("memory_spread_page")?,
            memory_spread_slab: flag("memory_spread_slab")?,
            memory_pressure: flag("memory_pressure")?,
            sched_load_balance: flag("sched_load_balance")?,
            sched_relax_domain_level: set
                .text("cpuset.sched_relax_domain_level")?
                .trim()
                .parse()
                .unwrap_or_default(),
        };

        let memory = dir("memory");
        let files = ["usage_in_bytes", "limit_in_bytes", "max_usage_in_bytes"];
        stats.memory.raw = memory.table("memory.stat")?;
        stats.memory.cache = stats.memory.raw.get("cache").copied().unwrap_or_default();
        stats.memory.usage = memory.limited("memory", files)?;
        stats.memory.swap = memory.limited("memory.memsw", files)?;
        stats.memory.kernel = memory.limited("memory.kmem", files)?;
        stats.memory.kernel_tcp = memory.limited("memory.kmem.tcp", files)?;

        let pids = dir("pids");
        stats.pids =
            Pids { current: pids.number("pids.current")?.unwrap_or_default(), limit: pids.pids_max()? };
        blkio_v1(&dir("blkio"), &mut stats.blkio)?;
        let huge = dir("hugetlb");
        for size in page_sizes() {
            let reserved = format!("hugetlb.{size}.rsvd");
            let prefix = match huge.number(&format!("{reserved}.usage_in_bytes"))? {
                Some(_) => reserved,
                None => format!("hugetlb.{size}"),
            };
            let Some(usage) = huge.number(&format!("{prefix}.usage_in_bytes"))? else { continue };
            let max = huge.number(&format!("{prefix}.max_usage_in_bytes"))?.unwrap_or_default();
            let failcnt = huge.number(&format!("{prefix}.failcnt"))?.unwrap_or_default();
            stats.hugetlb.insert(size, Entry { usage, max, failcnt });
        }
        Ok(stats)
    }

    /// How often the OOM killer has ended a process of the container.
    pub fn oom_kills(&self) -> u64 {
        let name = if self.version == Version::V2 { "memory.events" } else { "memory.oom_control" };
        // Without a memory controller there is no limit to run into.
        Dir(self.hierarchy("memory"))
            .table(name)
            .unwrap_or_default()
            .get("oom_kill")
            .copied()
            .unwrap_or_default()
    }
}

/// The container's directory in a hierarchy, if it has that one.
struct Dir<'a>(Option<&'a Hierarchy>);

impl Dir<'_> {
    /// Empty if there is no such file.
    fn text(&self, name: &str) -> Result<String> {
        let Some(hierarchy) = self.0 else { return Ok(String::new()) };
        let path = format!("{}/{name}", hierarchy.dir());
        match file::read_all(file::ABSOLUTE, &path) {
            Ok(text) => Ok(text),
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(String::new()),
            Err(errno) => Err(anyhow!("read {path}: {}", words(errno))),
        }
    }

    /// `max` is the greatest number.
    fn number(&self, name: &str) -> Result<Option<u64>> {
        let text = self.text(name)?;
        Ok(match text.trim() {
            "max" => Some(u64::MAX),
            text => text.parse().ok(),
        })
    }

    fn pids_max(&self) -> Result<u64> {
        Ok(self.number("pids.max")?.filter(|&max| max != u64::MAX).unwrap_or_default())
    }

    fn table(&self, name: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.text(name)?;
        let pair = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_string(), value.trim().parse().ok()?))
        };
        Ok(text.lines().filter_map(pair).collect())
    }

    fn limited(&self, prefix: &str, [usage, limit, max]: [&str; 3]) -> Result<Limited> {
        let number = |name: &str| {
            Ok::<_, anyhow::Error>(self.number(&format!("{prefix}.{name}"))?.unwrap_or_default())
        };
        Ok(Limited {
            usage: number(usage)?,
            limit: number(limit)?,
            max: number(max)?,
            failcnt: number("failcnt")?,
        })
    }

    fn psi(&self, name: &str) -> Result<Option<Psi>> {
        Ok(psi(&self.text(name)?))
    }
}

pub fn psi(text: &str) -> Option<Psi> {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let pressure = match fields.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            match key {
                "avg10" => pressure.avg10 = value.parse().unwrap_or_default(),
                "avg60" => pressure.avg60 = value.parse().unwrap_or_default(),
                "avg300" => pressure.avg300 = value.parse().unwrap_or_default(),
                "total" => pressure.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
    }
    Some(psi).filter(|_| !text.is_empty())
}

pub fn numbers(text: &str) -> impl Iterator<Item = u64> + '_ {
    text.split_whitespace().filter_map(|field| field.parse().ok())
}

/// `0-2,5` → 0, 1, 2, 5. The kernel lists them in order; what does not go on in it is left out.
pub fn ranges(text: &str) -> Vec<u16> {
    let mut all: Vec<u16> = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse(), last.parse()) {
            let next = all.last().map_or(Some(0), |&last| last.checked_add(1));
            all.extend(next.into_iter().flat_map(|next| next.max(first)..=last));
        }
    }
    all
}

/// One line of `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ..`.
pub fn io_line(line: &str, blkio: &mut Blkio) {
    let mut fields = line.split(' ');
    let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else { return };
    let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { return };
    for (key, value) in fields.filter_map(|field| field.split_once('=')) {
        let (list, op) = match key {
            "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
            "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
            "rios" => (&mut blkio.io_serviced_recursive, "Read"),
            "wios" => (&mut blkio.io_serviced_recursive, "Write"),
            _ => continue,
        };
        if let Ok(value) = value.parse() {
            list.push(Device { major, minor, op: op.into(), value });
        }
    }
}

/// The first family of files that the kernel has, which depends on the I/O scheduler: BFQ with and without its debug
/// files, CFQ, throttling alone.
fn blkio_v1(dir: &Dir, blkio: &mut Blkio) -> Result<()> {
    let devices = |name: &str| Ok::<_, anyhow::Error>(device_lines(&dir.text(name)?));
    for prefix in ["blkio.bfq", "blkio"] {
        if dir.text(&format!("{prefix}.sectors_recursive"))?.is_empty() {
            continue;
        }
        let list = |name: &str| devices(&format!("{prefix}.{name}_recursive"));
        blkio.sectors_recursive = list("sectors")?;
        blkio.io_service_time_recursive = list("io_service_time")?;
        blkio.io_wait_time_recursive = list("io_wait_time")?;
        blkio.io_merged_recursive = list("io_merged")?;
        blkio.io_queue_recursive = list("io_queued")?;
        blkio.io_time_recursive = list("time")?;
    }
    for form in
        ["blkio.bfq.X_recursive", "blkio.X_recursive", "blkio.throttle.X_recursive", "blkio.throttle.X"]
    {
        blkio.io_serviced_recursive = devices(&form.replace('X', "io_serviced"))?;
        blkio.io_service_bytes_recursive = devices(&form.replace('X', "io_service_bytes"))?;
        if !blkio.io_serviced_recursive.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Lines of `8:0 Read 5` or `8:0 5`; the sum at the end is left out.
pub fn device_lines(text: &str) -> Vec<Device> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split([' ', ':']).collect();
        let (major, minor, op, value) = match fields[..] {
            [major, minor, op, value] => (major, minor, op, value),
            [major, minor, value] => (major, minor, "", value),
            _ => return None,
        };
        Some(Device {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.into(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(line).collect()
}

/// Page sizes as in file names: `hugepages-2048kB` → `2MB`.
fn page_sizes() -> Vec<String> {
    use std::os::fd::AsFd;
    let dir = file::open_listed(file::ABSOLUTE, "/sys/kernel/mm/hugepages");
    let names = dir.and_then(|dir| file::child_dirs(dir.as_fd())).unwrap_or_default();
    let mut sizes: Vec<String> = names.iter().filter_map(|name| page_size(name.to_str().ok()?)).collect();
    sizes.sort();
    sizes
}

pub fn page_size(name: &str) -> Option<String> {
    let kb: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kb {
        1_048_576.. => format!("{}GB", kb >> 20),
        1024.. => format!("{}MB", kb >> 10),
        _ => format!("{kb}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_the_kernel() {
        assert_eq!(ranges("0-2,5\n"), [0, 1, 2, 5]);
        assert!(ranges("\n").is_empty());
        assert_eq!(ranges("0,0-65535,94").len(), 65_536);
        assert_eq!(ranges("3,1-4"), [3, 4]);
        let text = "some avg10=0.50 avg60=0.00 avg300=1.25 total=15605\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        let some = Pressure { avg10: 0.5, avg300: 1.25, total: 15605, ..Default::default() };
        let full = Pressure { total: 9, ..Default::default() };
        assert_eq!(psi(text), Some(Psi { some, full }));
        assert_eq!(psi(""), None);
        let device = |op: &str, value| Device { major: 8, minor: 16, op: op.into(), value };
        assert_eq!(
            device_lines("8:16 Read 5\n8:16 Sync 7\nTotal 12\n"),
            [device("Read", 5), device("Sync", 7)]
        );
        assert_eq!(device_lines("8:16 5\n"), [device("", 5)]);
        let mut blkio = Blkio::default();
        io_line("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6", &mut blkio);
        assert_eq!(blkio.io_service_bytes_recursive, [device("Read", 1), device("Write", 2)]);
        assert_eq!(blkio.io_serviced_recursive, [device("Read", 3), device("Write", 4)]);
        for (name, size) in [("2048kB", "2MB"), ("1048576kB", "1GB"), ("64kB", "64KB")] {
            assert_eq!(page_size(&format!("hugepages-{name}")).as_deref(), Some(size));
        }
    }

    /// Field by field what runc 1.3.6 prints for a container that has used nothing.
    #[test]
    fn shape_of_the_event() {
        let limited = r#"{"limit":0,"failcnt":0}"#;
        assert_eq!(
            serde_json::to_string(&Stats::default()).unwrap(),
            [
                r#"{"cpu":{"usage":{"kernel":0,"user":0},"throttling":{}},"#,
                r#""cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"#,
                r#""memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"#,
                r#""sched_relax_domain_level":0},"#,
                &format!(r#""memory":{{"usage":{limited},"swap":{limited},"#),
                &format!(r#""kernel":{limited},"kernelTCP":{limited}}},"#),
                r#""pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}"#,
            ]
            .concat()
        );
    }
}
