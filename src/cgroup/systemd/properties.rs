//! Resources and device rules → properties of the container's unit (systemd.resource-control(5)).
//!
//! Pure. systemd keeps what it is told here and writes it again when it reloads; the files of the cgroup are written
//! besides, because there is no property for all of them. So a value must mean the same in both, also after systemd has
//! rounded it. Called by `systemd`.

use super::value::Value;
use crate::cgroup::Version;
use crate::cgroup::devices::{Exception, Kind, MKNOD, Policy, READ, WRITE};
use crate::cgroup::resources::{Absent, Group, Limits, Write, asked, pids_max};
use crate::cgroup::v2;
use anyhow::{Context, Result, bail};
use oci_spec::runtime::LinuxResources;

/// A property: name, value.
pub type Property = (String, Value);

/// What systemd takes for "no limit".
const INFINITY: u64 = u64::MAX;
/// Default period of a quota, in microseconds.
const DEFAULT_PERIOD_US: u64 = 100_000;
/// systemd counts a quota in hundredths of a processor.
const QUOTA_STEP_US: u128 = 10_000;
/// More than any kernel's number of processors or memory nodes.
const MAX_BIT: usize = 65_535;

/// Longest list of them, bytes.
const LONGEST_LIST: usize = 64 << 10;

/// The first versions of systemd that know a property, or a form of it.
const KNOWS_DEVICE_NUMBERS: u32 = 240;
const KNOWS_QUOTA_PERIOD: u32 = 242;
const KNOWS_CPUSET: u32 = 244;
const KNOWS_CPU_IDLE: u32 = 252;
const KNOWS_OOM_POLICY: u32 = 253;

/// What the properties depend on.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// The host's cgroups.
    pub cgroups: Version,
    /// Version of systemd.
    pub systemd: u32,
}

impl Host {
    /// Does `char-136` mean a major number? Before, only names of `/proc/devices` stand there.
    pub fn knows_device_numbers(&self) -> bool {
        self.systemd >= KNOWS_DEVICE_NUMBERS
    }
}

/// The number in `262.1-3`, `v245.4-1.fc32` and the like.
pub fn systemd_version(text: &str) -> Option<u32> {
    let text = text.trim_start_matches(['"', 'v']);
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// A quota as systemd will set it: rounded up, so that the file holds the same. `quota` and `period` in microseconds.
pub fn rounded_quota(quota: i64, period: u64) -> i64 {
    let period = if period == 0 { DEFAULT_PERIOD_US } else { period };
    match (quota > 0).then(|| quota_per_second(quota, period)) {
        Some((per_second, true)) => {
            let rounded = u128::from(per_second) * u128::from(period) / 1_000_000;
            i64::try_from(rounded).unwrap_or(quota)
        }
        _ => quota,
    }
}

/// Microseconds a second, and whether they were rounded up.
fn quota_per_second(quota: i64, period: u64) -> (u64, bool) {
    let exact = quota as u128 * 1_000_000 / u128::from(period);
    let rounded = exact.next_multiple_of(QUOTA_STEP_US);
    (u64::try_from(rounded).unwrap_or(INFINITY), rounded != exact)
}

/// systemd knows one property for weight and idleness, so a cgroup has the one or the other: of both in one
/// configuration the weight is left out of the files too, and in an update (`again`) a weight ends idleness.
pub fn settle_weight(writes: &mut Vec<Write>, again: bool, warnings: &mut Vec<String>) {
    let Some(weight) = writes.iter().position(|write| write.file == "cpu.weight") else { return };
    match writes.iter().rfind(|write| write.file == "cpu.idle") {
        Some(idle) if idle.value.trim() == "1" => {
            writes.retain(|write| write.file != "cpu.weight");
            // runc's words.
            warnings.push("unable to apply both CPUWeight and CpuIdle to systemd, ignoring CPUWeight".into());
        }
        None if again => {
            let field = writes[weight].field.clone();
            writes.insert(weight, Write::new("cpu", "cpu.idle", 0, field).if_absent(Absent::Skip));
        }
        _ => {}
    }
}

/// On v1 systemd puts the period back to its default when it lifts the quota: an update of the quota writes it as well.
pub fn keep_period(writes: &mut Vec<Write>, limits: &Limits) {
    let has = |file: &str| writes.iter().position(|write| write.file == file);
    if let (Some(quota), None) = (has("cpu.cfs_quota_us"), has("cpu.cfs_period_us"))
        && limits.period != 0
    {
        let field = writes[quota].field.clone();
        let period = Write::new("cpu", "cpu.cfs_period_us", limits.period, field);
        writes.insert(quota, period.grouped(Group::Time));
    }
}

/// The properties for `resources`; `limits` are those in force with it. Of two for the same thing the later one stands.
pub fn of_resources(resources: &LinuxResources, limits: &Limits, host: Host) -> Result<Vec<Property>> {
    let mut list = List { properties: Vec::new(), host };
    match host.cgroups {
        Version::V2 => list.add_v2(resources, limits),
        Version::V1 | Version::Hybrid => list.add_v1(resources),
    }
    if let Some(cpu) = resources.cpu() {
        if asked(cpu.quota()).is_some() || asked(cpu.period()).is_some() {
            list.quota(limits.quota, limits.period);
        }
        for (field, value) in [("cpus", cpu.cpus()), ("mems", cpu.mems())] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                list.cpuset(field, value).with_context(|| format!("/linux/resources/cpu/{field}"))?;
            }
        }
    }
    if let Some(max) = pids_max(resources) {
        list.tasks(&max).context("/linux/resources/pids/limit")?;
    }
    if host.cgroups == Version::V2 {
        list.add_unified(resources)?;
    }
    Ok(list.properties)
}

struct List {
    properties: Vec<Property>,
    host: Host,
}

impl List {
    fn set(&mut self, name: &str, value: Value) {
        self.properties.retain(|(old, _)| old != name);
        self.properties.push((name.into(), value));
    }

    fn number(&mut self, name: &str, number: u64) {
        self.set(name, Value::U64(number));
    }

    fn add_v2(&mut self, resources: &LinuxResources, limits: &Limits) {
        if let Some(memory) = resources.memory() {
            // -1 is systemd's infinity, too.
            if let Some(limit) = asked(memory.limit()) {
                self.number("MemoryMax", limit as u64);
            }
            if let Some(reservation) = asked(memory.reservation()) {
                self.number("MemoryLow", reservation as u64);
            }
            if let Some(swap) = v2::swap_max(memory, limits) {
                self.number("MemorySwapMax", swap.parse().unwrap_or(INFINITY));
            }
        }
        let Some(cpu) = resources.cpu() else { return };
        if cpu.idle() == Some(1) && self.host.systemd >= KNOWS_CPU_IDLE {
            // An idle cgroup has no weight.
            self.number("CPUWeight", 0);
        } else if let Some(shares) = asked(cpu.shares()) {
            self.number("CPUWeight", v2::weight_of_shares(shares));
        }
    }

    fn add_v1(&mut self, resources: &LinuxResources) {
        if let Some(limit) = resources.memory().as_ref().and_then(|memory| asked(memory.limit())) {
            self.number("MemoryLimit", limit as u64);
        }
        if let Some(shares) = resources.cpu().as_ref().and_then(|cpu| asked(cpu.shares())) {
            self.number("CPUShares", shares);
        }
        if let Some(weight) = resources.block_io().as_ref().and_then(|block_io| asked(block_io.weight())) {
            self.number("BlockIOWeight", weight.into());
        }
    }

    fn quota(&mut self, quota: i64, period: u64) {
        if period != 0 && self.host.systemd >= KNOWS_QUOTA_PERIOD {
            self.number("CPUQuotaPeriodUSec", period);
        }
        let period = if period == 0 { DEFAULT_PERIOD_US } else { period };
        let per_second = if quota > 0 { quota_per_second(quota, period).0 } else { INFINITY };
        self.number("CPUQuotaPerSecUSec", per_second);
    }

    fn cpuset(&mut self, field: &str, value: &str) -> Result<()> {
        let bits = bits(value)?;
        if self.host.systemd >= KNOWS_CPUSET {
            let name = if field == "cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
            self.set(name, Value::bytes(&bits));
        }
        Ok(())
    }

    fn tasks(&mut self, max: &str) -> Result<()> {
        // systemd takes no 0.
        self.number("TasksMax", limit(max)?.max(1));
        Ok(())
    }

    fn add_unified(&mut self, resources: &LinuxResources) -> Result<()> {
        let mut all: Vec<_> = resources.unified().iter().flatten().collect();
        all.sort_by_key(|(key, _)| key.as_str());
        for (key, value) in all {
            self.unified(key, value.trim()).with_context(|| {
                format!("/linux/resources/unified/{key}: unified resource {key:?} value conversion error: {value:?}")
            })?;
        }
        Ok(())
    }

    fn unified(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "cpu.idle" if value == "1" && self.host.systemd >= KNOWS_CPU_IDLE => self.number("CPUWeight", 0),
            // What is idle, `cpu.idle` sorts before, has no weight.
            "cpu.weight" if self.properties.contains(&("CPUWeight".into(), Value::U64(0))) => {}
            "cpu.weight" => self.number("CPUWeight", value.parse()?),
            "cpu.max" => {
                let mut words = value.split_whitespace();
                let quota = match words.next().context("no quota")? {
                    "max" => 0,
                    quota => quota.parse()?,
                };
                let period = words.next().map_or(Ok(DEFAULT_PERIOD_US), str::parse)?;
                if period == 0 || words.next().is_some() {
                    bail!("not a quota and a period");
                }
                self.quota(quota, period);
            }
            "cpuset.cpus" => self.cpuset("cpus", value)?,
            "cpuset.mems" => self.cpuset("mems", value)?,
            "memory.high" => self.number("MemoryHigh", limit(value)?),
            "memory.low" => self.number("MemoryLow", limit(value)?),
            "memory.min" => self.number("MemoryMin", limit(value)?),
            "memory.max" => self.number("MemoryMax", limit(value)?),
            "memory.swap.max" => self.number("MemorySwapMax", limit(value)?),
            "pids.max" => self.tasks(value)?,
            // The file alone.
            _ => {}
        }
        Ok(())
    }
}

fn limit(value: &str) -> Result<u64> {
    if value == "max" { Ok(INFINITY) } else { Ok(value.parse()?) }
}

/// What can only be said when the unit is made: whether the whole of it dies when memory runs out.
pub fn oom_policy(resources: &LinuxResources, host: Host) -> Option<Property> {
    if host.cgroups != Version::V2 || host.systemd < KNOWS_OOM_POLICY {
        return None;
    }
    let policy = match resources.unified().as_ref()?.get("memory.oom.group")?.trim() {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    Some(("OOMPolicy".into(), Value::text(policy)))
}

/// `0-2,7` → one bit a number, the first byte has the lowest ones.
fn bits(list: &str) -> Result<Vec<u8>> {
    let mut bits = Vec::new();
    // Bounds the time that overlapping ranges take.
    if list.len() > LONGEST_LIST {
        bail!("is longer than {LONGEST_LIST} bytes");
    }
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse()?, last.parse()?);
        if first > last || last > MAX_BIT {
            bail!("invalid range: {part}");
        }
        if bits.len() <= last / 8 {
            bits.resize(last / 8 + 1, 0u8);
        }
        (first..=last).for_each(|bit| bits[bit / 8] |= 1 << (bit % 8));
    }
    if bits.is_empty() {
        bail!("empty value");
    }
    Ok(bits)
}

/// The device rules, which systemd then puts in force again whenever it has to.
///
/// It knows lists of what is allowed. On v2, where its program and ours must both agree, a policy that such a list cannot
/// say is left to ours alone; on v1, where it overwrites what we write when it reloads, it gets the strictest list that
/// is near. `groups` is the text of `/proc/devices`, for systemd before 240.
pub fn of_devices(policy: &Policy, host: Host, groups: &str) -> Vec<Property> {
    let lists = |name: &str, entries: Vec<(String, String)>| {
        let entries = entries
            .into_iter()
            .map(|(path, access)| Value::Struct(vec![Value::text(path), Value::text(access)]))
            .collect();
        vec![
            ("DevicePolicy".into(), Value::text(name)),
            ("DeviceAllow".into(), Value::Array("(ss)".into(), entries)),
        ]
    };
    let all = policy.allow_by_default && policy.exceptions.is_empty();
    let entries: Vec<Option<(String, String)>> = match policy.allow_by_default {
        true => Vec::new(),
        false => policy.exceptions.iter().map(|one| device(one, host, groups)).collect(),
    };
    let exact = !policy.allow_by_default && entries.iter().all(Option::is_some);
    if all || (host.cgroups == Version::V2 && !exact) {
        return lists("auto", Vec::new());
    }
    lists("strict", entries.into_iter().flatten().collect())
}

/// One entry of `DeviceAllow`; none where systemd has no word for it.
fn device(one: &Exception, host: Host, groups: &str) -> Option<(String, String)> {
    let (kind, short) = match one.kind {
        Kind::Block => ("block", "Block devices:"),
        Kind::Char => ("char", "Character devices:"),
    };
    let path = match (one.major, one.minor) {
        (None, None) => format!("{kind}-*"),
        (None, Some(_)) => return None,
        (Some(major), None) if host.knows_device_numbers() => format!("{kind}-{major}"),
        (Some(major), None) => format!("{kind}-{}", group(groups, short, major)?),
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
    };
    let access = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    let access = access.iter().filter(|(bit, _)| one.access & bit != 0).map(|(_, letter)| letter).collect();
    Some((path, access))
}

/// The name of a major number in `/proc/devices`.
fn group<'a>(text: &'a str, title: &str, major: u32) -> Option<&'a str> {
    let lines = text.lines().skip_while(|line| *line != title).skip(1).take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.trim().split_once(' '))
        .find_map(|(number, name)| (number.parse() == Ok(major)).then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::devices::tests::policy;
    use crate::cgroup::resources::tests::resources;

    const NEW: Host = Host { cgroups: Version::V2, systemd: 262 };

    fn all(text: &str, host: Host) -> Result<Vec<String>> {
        let resources = resources(text);
        let limits = Limits::default().with(&resources)?;
        Ok(lines(of_resources(&resources, &limits, host)?))
    }

    fn lines(properties: Vec<Property>) -> Vec<String> {
        properties
            .into_iter()
            .map(|(name, value)| match value {
                Value::U64(INFINITY) => format!("{name}=infinity"),
                Value::U64(n) => format!("{name}={n}"),
                Value::Text(text) => format!("{name}={text}"),
                Value::Array(_, items) if items.iter().all(|item| matches!(item, Value::Struct(_))) => {
                    let entry = |item: &Value| match item {
                        Value::Struct(fields) => match &fields[..] {
                            [Value::Text(path), Value::Text(access)] => format!("{path} {access}"),
                            _ => panic!(),
                        },
                        _ => panic!(),
                    };
                    format!("{name}={}", items.iter().map(entry).collect::<Vec<_>>().join(","))
                }
                Value::Array(kind, items) if kind == "y" => {
                    let byte = |item: &Value| match item {
                        Value::Byte(byte) => format!("{byte:02x}"),
                        _ => panic!(),
                    };
                    format!("{name}={}", items.iter().map(byte).collect::<String>())
                }
                other => format!("{name}={other:?}"),
            })
            .collect()
    }

    /// What runc 1.3.6 tells systemd of the same resources.
    #[test]
    fn conversions_v2() {
        for (text, expected) in [
            ("{}", &[][..]),
            (r#"{"memory":{"limit":0},"cpu":{"shares":0},"pids":{"limit":0}}"#, &[]),
            (
                r#"{"memory":{"limit":100,"swap":300,"reservation":50}}"#,
                &["MemoryMax=100", "MemoryLow=50", "MemorySwapMax=200"],
            ),
            (r#"{"memory":{"limit":-1}}"#, &["MemoryMax=infinity", "MemorySwapMax=infinity"]),
            (r#"{"memory":{"limit":100,"swap":100}}"#, &["MemoryMax=100", "MemorySwapMax=0"]),
            (r#"{"cpu":{"shares":1024}}"#, &["CPUWeight=100"]),
            (r#"{"cpu":{"shares":1024,"idle":1}}"#, &["CPUWeight=0"]),
            (r#"{"cpu":{"quota":20000}}"#, &["CPUQuotaPerSecUSec=200000"]),
            (
                r#"{"cpu":{"quota":20000,"period":50000}}"#,
                &["CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=400000"],
            ),
            (
                r#"{"cpu":{"quota":5000,"period":33333}}"#,
                &["CPUQuotaPeriodUSec=33333", "CPUQuotaPerSecUSec=160000"],
            ),
            (r#"{"cpu":{"quota":-1}}"#, &["CPUQuotaPerSecUSec=infinity"]),
            (r#"{"cpu":{"period":1000}}"#, &["CPUQuotaPeriodUSec=1000", "CPUQuotaPerSecUSec=infinity"]),
            (r#"{"pids":{"limit":-1}}"#, &["TasksMax=infinity"]),
            (r#"{"pids":{"limit":20}}"#, &["TasksMax=20"]),
            (
                r#"{"memory":{"limit":9},"unified":{"memory.max":"7","memory.min":"1","memory.high":"max","pids.max":"0",
                    "cpu.max":"5000 50000","cpu.weight":"42","io.max":"x","memory.oom.group":"1"}}"#,
                &[
                    "CPUQuotaPeriodUSec=50000",
                    "CPUQuotaPerSecUSec=100000",
                    "CPUWeight=42",
                    "MemoryHigh=infinity",
                    "MemoryMax=7",
                    "MemoryMin=1",
                    "TasksMax=1",
                ],
            ),
            (r#"{"unified":{"cpu.idle":"1","cpu.weight":"5"}}"#, &["CPUWeight=0"]),
            (r#"{"cpu":{"cpus":"0-2,9","mems":"0"}}"#, &["AllowedCPUs=0702", "AllowedMemoryNodes=01"]),
            (
                r#"{"cpu":{"cpus":"1"},"unified":{"cpuset.cpus":"3","cpuset.mems":"0-1"}}"#,
                &["AllowedCPUs=08", "AllowedMemoryNodes=03"],
            ),
            // There is no property for these.
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1}],"rdma":{"mlx5_1":{"hcaHandles":3}},
                    "unified":{"hugetlb.2MB.max":"1","rdma.max":"mlx5_1 hca_handle=3"}}"#,
                &[],
            ),
        ] {
            assert_eq!(all(text, NEW).unwrap(), expected, "{text}");
        }
        for (text, field) in [
            (r#"{"cpu":{"cpus":"3-1"}}"#, "cpu/cpus"),
            (r#"{"cpu":{"mems":","}}"#, "cpu/mems"),
            (r#"{"cpu":{"cpus":"99999999"}}"#, "cpu/cpus"),
            (r#"{"unified":{"memory.max":"1g"}}"#, "unified/memory.max"),
            (r#"{"unified":{"cpu.max":"1 2 3"}}"#, "unified/cpu.max"),
            (r#"{"unified":{"cpu.max":"1 0"}}"#, "unified/cpu.max"),
        ] {
            let error = all(text, NEW).unwrap_err().to_string();
            assert!(error.starts_with(&format!("/linux/resources/{field}")), "{error}");
        }
    }

    #[test]
    fn conversions_v1() {
        let old = Host { cgroups: Version::V1, systemd: 239 };
        let text = r#"{"memory":{"limit":100,"swap":200},"cpu":{"shares":512,"quota":1000,"period":10000,"cpus":"0"},
            "blockIO":{"weight":300},"pids":{"limit":5}}"#;
        let expected = [
            "MemoryLimit=100",
            "CPUShares=512",
            "BlockIOWeight=300",
            "CPUQuotaPerSecUSec=100000",
            "TasksMax=5",
        ];
        assert_eq!(all(text, old).unwrap(), expected);
        let new = Host { systemd: 252, ..old };
        let text = r#"{"cpu":{"cpus":"0","mems":"1"}}"#;
        assert_eq!(all(text, new).unwrap(), ["AllowedCPUs=01", "AllowedMemoryNodes=02"]);
    }

    #[test]
    fn weight_or_idleness() {
        for (json, again, files, warned) in [
            (r#"{"cpu":{"shares":1024,"idle":1}}"#, true, &["cpu.idle=1"][..], 1),
            (r#"{"unified":{"cpu.idle":"1","cpu.weight":"8"}}"#, false, &["cpu.idle=1"], 1),
            (r#"{"cpu":{"shares":1024,"idle":0}}"#, true, &["cpu.weight=100", "cpu.idle=0"], 0),
            (r#"{"unified":{"cpu.weight":"8"}}"#, true, &["cpu.idle=0", "cpu.weight=8"], 0),
            (r#"{"unified":{"cpu.weight":"8"}}"#, false, &["cpu.weight=8"], 0),
            (r#"{"cpu":{"idle":1}}"#, true, &["cpu.idle=1"], 0),
        ] {
            let resources = serde_json::from_str(json).unwrap();
            let mut warnings = Vec::new();
            let mut writes = v2::writes(&resources, &Limits::default(), &mut warnings).unwrap();
            settle_weight(&mut writes, again, &mut warnings);
            let lines: Vec<_> =
                writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect();
            assert_eq!(
                (lines, warnings.len()),
                (files.iter().map(|f| f.to_string()).collect(), warned),
                "{json}"
            );
        }
    }

    #[test]
    fn the_period_stays() {
        for (json, period, files) in [
            (r#"{"cpu":{"quota":-1}}"#, 50_000, &["cpu.cfs_period_us=50000", "cpu.cfs_quota_us=-1"][..]),
            (r#"{"cpu":{"quota":-1}}"#, 0, &["cpu.cfs_quota_us=-1"]),
            (r#"{"cpu":{"shares":100}}"#, 50_000, &["cpu.shares=100"]),
            (
                r#"{"cpu":{"quota":100,"period":7000}}"#,
                7000,
                &["cpu.cfs_period_us=7000", "cpu.cfs_quota_us=100"],
            ),
        ] {
            let limits = Limits { period, ..Limits::default() };
            let resources = serde_json::from_str(json).unwrap();
            let mut writes = crate::cgroup::v1::writes(&resources, &limits, &mut Vec::new()).unwrap();
            keep_period(&mut writes, &limits);
            let lines: Vec<_> =
                writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect();
            assert_eq!(lines, files, "{json}");
        }
    }

    #[test]
    fn quotas_are_rounded_like_systemd_does() {
        for (quota, period, expected) in [
            (20_000, 100_000, 20_000),
            (5_000, 33_333, 5_333),
            (1, 100_000, 1_000),
            (-1, 100_000, -1),
            (0, 0, 0),
        ] {
            assert_eq!(rounded_quota(quota, period), expected, "{quota} of {period}");
        }
        assert_eq!(rounded_quota(i64::MAX, 1), i64::MAX);
    }

    #[test]
    fn sets_of_processors() {
        assert_eq!(bits("0").unwrap(), [1]);
        assert_eq!(bits("0-2, 9").unwrap(), [7, 2]);
        assert_eq!(bits("5-8").unwrap(), [0xe0, 1]);
        assert_eq!(bits("16,").unwrap(), [0, 0, 1]);
        assert!(bits(&"0-65535,".repeat(9000)).is_err());
    }

    #[test]
    fn versions() {
        for (text, number) in
            [("262 (262-1)", 262), ("v245.4-1.fc32", 245), ("\"v239\"", 239), ("252.39-1~deb12u2", 252)]
        {
            assert_eq!(systemd_version(text), Some(number), "{text}");
        }
        assert_eq!(systemd_version("x"), None);
    }

    const DENY_ALL: &str = r#"{"allow":false,"access":"rwm"}"#;
    const ALLOW_ALL: &str = r#"{"allow":true,"access":"rwm"}"#;
    const DEFAULT: &str = "DeviceAllow=char-* m,block-* m,/dev/char/1:3 rwm,/dev/char/1:8 rwm,/dev/char/1:7 rwm,\
        /dev/char/5:0 rwm,/dev/char/1:5 rwm,/dev/char/1:9 rwm,char-136 rwm,/dev/char/5:2 rwm,/dev/char/10:200 rwm";

    #[test]
    fn device_rules() {
        let of = |rules: &str, host: Host| lines(of_devices(&policy(&format!("[{rules}]")), host, ""));
        let strict = |more: &str| vec!["DevicePolicy=strict".to_string(), format!("{DEFAULT}{more}")];
        let auto = vec!["DevicePolicy=auto".to_string(), "DeviceAllow=".to_string()];
        let v1 = Host { cgroups: Version::V1, ..NEW };
        assert_eq!(of(DENY_ALL, NEW), strict(""));
        assert_eq!(of(&format!("{DENY_ALL},{ALLOW_ALL}"), NEW), auto);
        assert_eq!(of(&format!("{DENY_ALL},{ALLOW_ALL}"), v1), auto);
        let minor = r#"{"allow":true,"type":"c","minor":7,"access":"r"}"#;
        let deny = r#"{"allow":false,"type":"c","major":10,"minor":229,"access":"rwm"}"#;
        // What systemd cannot say: our own program alone, or the nearest that denies more.
        assert_eq!(of(&format!("{DENY_ALL},{minor}"), NEW), auto);
        assert_eq!(of(&format!("{DENY_ALL},{minor}"), v1), strict(""));
        assert_eq!(of(&format!("{ALLOW_ALL},{deny}"), NEW), auto);
        assert_eq!(of(&format!("{ALLOW_ALL},{deny}"), v1), ["DevicePolicy=strict", "DeviceAllow="]);
        let groups = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n136 other\n";
        let old = lines(of_devices(&policy(&format!("[{DENY_ALL}]")), Host { systemd: 239, ..v1 }, groups));
        assert!(old[1].contains(",char-pts rwm,"), "{old:?}");
    }
}
