//! `update`: new limits for a container that exists.
//!
//! Reads the limits, from flags or JSON, and stores what a later update has to know; `cgroup` checks and sets them.
//! Device rules are never touched. Called by `main`.

use crate::cgroup;
use crate::cli::{self, Global};
use crate::exit::ExitCode;
use crate::resctrl::Group;
use crate::state::{NOT_RUNNING, Status, Store};
use crate::{json, log};
use anyhow::{Context, Result, anyhow, bail};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::num::IntErrorKind;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// How long another process may be at work on the container.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// Most that is read of a description of resources, bytes.
const RESOURCES_MAX: u64 = 16 << 20;
/// Where the kernel tells what this machine's resource control can do; not there if it is not mounted.
const RESCTRL: &str = "/sys/fs/resctrl/info";

/// Sets new limits. On an error the old ones are in force, and stored.
pub fn update(global: &Global, args: cli::Update) -> Result<ExitCode> {
    let (dir, made) = Store::new(global.root.as_deref())?.load(&args.id)?;
    let resources = match &args.resources {
        Some(path) => read_resources(path)?,
        None => resources_of(&args)?,
    };
    check_resource_control(&args, made.resctrl.as_ref())?;
    // Of two updates at a time, the later one must know what the earlier one has set.
    let _lock = dir.lock_within(LOCK_TIMEOUT)?;
    let mut state = dir.read()?;
    if state.status_locked(&dir)?.0 == Status::Stopped {
        bail!(NOT_RUNNING);
    }
    let mut record = state.cgroup.clone();
    let store = |changed: &cgroup::Record| {
        if let Some(group) = &made.resctrl {
            group.update(args.l3_cache_schema.as_deref(), args.mem_bw_schema.as_deref())?;
        }
        if *changed == state.cgroup {
            return Ok(());
        }
        state.cgroup = changed.clone();
        dir.write(&state)
    };
    for warning in record.update(&resources, store)? {
        log::warn(warning);
    }
    Ok(ExitCode::SUCCESS)
}

/// The resources as JSON, from a file or, for `-`, from stdin; what follows the first value is left there.
fn read_resources(path: &Path) -> Result<LinuxResources> {
    let (name, source): (_, Box<dyn Read>) = match path.as_os_str() == "-" {
        true => ("stdin".into(), Box::new(io::stdin().lock())),
        false => {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("open {name}"))?;
            (name, Box::new(BufReader::new(file)))
        }
    };
    parse_resources(source).map_err(|error| match error.downcast::<io::Error>() {
        Ok(error) => anyhow::Error::new(error).context(format!("read {name}")),
        Err(error) => anyhow!("{name}: {error}"),
    })
}

/// Reads one value and no further, so that a caller who keeps its end of a pipe open is not waited for.
pub fn parse_resources(source: impl Read) -> Result<LinuxResources> {
    let mut text = Recorded { source: source.take(RESOURCES_MAX), seen: Vec::new() };
    let parsed = Option::deserialize(&mut serde_json::Deserializer::from_reader(&mut text));
    match parsed.map(Option::unwrap_or_default) {
        Ok(mut resources) => {
            if json::has_unclear_limit(&resources)
                && let Some(Ok(seen)) = serde_json::Deserializer::from_slice(&text.seen).into_iter().next()
            {
                json::set_explicit_limit(&mut resources, &seen, "/pids/limit");
            }
            Ok(resources)
        }
        Err(error) if error.is_io() => Err(io::Error::from(error).into()),
        Err(_) if text.seen.len() as u64 == RESOURCES_MAX => bail!("is larger than {RESOURCES_MAX} bytes"),
        Err(error) => {
            if let Some(resources) = parse_without_nulls(&text.seen, &mut text.source) {
                return Ok(resources);
            }
            let offset = json::offset_of(&text.seen, error.line(), error.column());
            let pointer = json::pointer_at(&text.seen, offset);
            if pointer.is_empty() { Err(error.into()) } else { Err(anyhow!("{pointer}: {error}")) }
        }
    }
}

/// The same value from its beginning, of which `seen` is read already, where it holds nulls that Go reads as absent.
fn parse_without_nulls(seen: &[u8], source: &mut impl Read) -> Option<LinuxResources> {
    let whole = seen.chain(source);
    let mut json = serde_json::Value::deserialize(&mut serde_json::Deserializer::from_reader(whole)).ok()?;
    if !json::without_nulls(&mut json) {
        return None;
    }
    let mut resources = LinuxResources::deserialize(&json).ok()?;
    json::set_explicit_limit(&mut resources, &json, "/pids/limit");
    Some(resources)
}

/// Keeps what was read, to name the field that an error is about.
struct Recorded<R> {
    source: R,
    seen: Vec<u8>,
}

impl<R: Read> Read for Recorded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.seen.extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

/// The resources that the flags name.
pub fn resources_of(args: &cli::Update) -> Result<LinuxResources> {
    let mut cpu = LinuxCpu::default();
    cpu.set_cpus(args.cpuset_cpus.clone());
    cpu.set_mems(args.cpuset_mems.clone());
    cpu.set_idle(integer("cpu-idle", &args.cpu_idle)?);
    cpu.set_burst(integer("cpu-burst", &args.cpu_burst)?);
    cpu.set_period(integer("cpu-period", &args.cpu_period)?);
    cpu.set_realtime_period(integer("cpu-rt-period", &args.cpu_rt_period)?);
    cpu.set_shares(integer("cpu-share", &args.cpu_share)?);
    cpu.set_quota(integer("cpu-quota", &args.cpu_quota)?);
    cpu.set_realtime_runtime(integer("cpu-rt-runtime", &args.cpu_rt_runtime)?);
    let mut memory = LinuxMemory::default();
    memory.set_limit(bytes("memory", &args.memory)?);
    memory.set_swap(bytes("memory-swap", &args.memory_swap)?);
    #[allow(deprecated)]
    memory.set_kernel(bytes("kernel-memory", &args.kernel_memory)?);
    memory.set_kernel_tcp(bytes("kernel-memory-tcp", &args.kernel_memory_tcp)?);
    memory.set_reservation(bytes("memory-reservation", &args.memory_reservation)?);
    let mut block_io = LinuxBlockIo::default();
    if args.blkio_weight != 0 {
        // runc cuts off the upper bits.
        let weight = u16::try_from(args.blkio_weight)
            .map_err(|_| anyhow!("invalid value for blkio-weight: {} is out of range", args.blkio_weight))?;
        block_io.set_weight(Some(weight));
    }
    let mut resources = LinuxResources::default();
    resources.set_cpu(Some(cpu)).set_memory(Some(memory)).set_block_io(Some(block_io));
    resources.set_pids(args.pids_limit.map(|limit| {
        let mut pids = LinuxPids::default();
        // As in JSON, 0 is a limit, and the least that there can be is 1.
        pids.set_limit(if limit == 0 { 1 } else { limit });
        pids
    }));
    Ok(resources)
}

/// Cache and memory bandwidth, for a container that was made with `linux.intelRdt` only, as in runc. Checked before
/// anything is set.
fn check_resource_control(args: &cli::Update, group: Option<&Group>) -> Result<()> {
    let can = |names: &[&str]| names.iter().any(|name| Path::new(RESCTRL).join(name).exists());
    if args.l3_cache_schema.is_some() && !can(&["L3", "L3CODE"]) {
        bail!("Intel RDT/CAT: l3 cache schema is not enabled");
    }
    if args.mem_bw_schema.is_some() && !can(&["MB"]) {
        bail!("Intel RDT/MBA: memory bandwidth schema is not enabled");
    }
    if (args.l3_cache_schema.is_some() || args.mem_bw_schema.is_some()) && group.is_none() {
        bail!("updating a non-existent Intel RDT configuration is not supported");
    }
    Ok(())
}

fn integer<T: FromStr<Err = std::num::ParseIntError>>(
    flag: &str,
    value: &Option<String>,
) -> Result<Option<T>> {
    let Some(text) = value else { return Ok(None) };
    text.parse().map(Some).map_err(|error: std::num::ParseIntError| {
        let why = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        anyhow!("invalid value for {flag}: parsing {text:?}: {why}")
    })
}

/// A number of bytes with a unit, or -1 for no limit.
fn bytes(flag: &str, value: &Option<String>) -> Result<Option<i64>> {
    match value.as_deref() {
        None => Ok(None),
        Some("-1") => Ok(Some(-1)),
        Some(text) => match parse_size(text) {
            Some(size) => Ok(Some(size)),
            None => bail!("invalid value for {flag}: invalid size: '{text}'"),
        },
    }
}

/// `512`, `1.5m`, `64 KiB`: powers of 1024, in any case; fractions of a byte are cut off.
pub fn parse_size(text: &str) -> Option<i64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let exponent = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let scale = 1_i64 << (10 * exponent);
    // Whole numbers exactly: a double has 53 bits.
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(scale).filter(|size| *size >= 0);
    }
    let size = number.parse::<f64>().ok()? * scale as f64;
    (0.0..i64::MAX as f64).contains(&size).then_some(size as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        // As runc 1.3.6 takes them.
        for (text, size) in [
            ("0", 0),
            ("512", 512),
            ("50K", 51_200),
            ("64m", 64 << 20),
            ("1.5m", 1_572_864),
            ("1MB", 1 << 20),
            ("1GiB", 1 << 30),
            ("2 g", 2 << 30),
            ("1t", 1 << 40),
            ("7b", 7),
            (".5k", 512),
            ("9007199254740993", 9_007_199_254_740_993),
        ] {
            assert_eq!(parse_size(text), Some(size), "{text}");
        }
        for text in ["", "x", "m", "-5", "1x", "1mm", "1mib2", "1..5", "1  m", "8192p", "1e400", "١"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        assert_eq!(bytes("memory", &Some("-1".into())).unwrap(), Some(-1));
        let error = bytes("memory", &Some("x".into())).unwrap_err().to_string();
        assert_eq!(error, "invalid value for memory: invalid size: 'x'");
    }

    #[test]
    fn flags_become_resources() {
        let args = cli::Update {
            memory: Some("64m".into()),
            memory_swap: Some("-1".into()),
            cpu_quota: Some("-1".into()),
            cpu_idle: Some("1".into()),
            cpuset_cpus: Some("0-1".into()),
            pids_limit: Some(-1),
            blkio_weight: 300,
            ..cli::Update::default()
        };
        let resources = serde_json::to_value(resources_of(&args).unwrap()).unwrap();
        let expected = serde_json::json!({
            "memory": {"limit": 67_108_864, "swap": -1},
            "cpu": {"quota": -1, "idle": 1, "cpus": "0-1"},
            "pids": {"limit": -1},
            "blockIO": {"weight": 300}
        });
        assert_eq!(resources, expected);
        let refused = |args: cli::Update| resources_of(&args).unwrap_err().to_string();
        for (args, expected) in [
            (
                cli::Update { cpu_share: Some("-1".into()), ..cli::Update::default() },
                r#"invalid value for cpu-share: parsing "-1": invalid syntax"#,
            ),
            (
                cli::Update { cpu_quota: Some("9223372036854775808".into()), ..cli::Update::default() },
                r#"invalid value for cpu-quota: parsing "9223372036854775808": value out of range"#,
            ),
            (
                cli::Update { blkio_weight: 70_000, ..cli::Update::default() },
                "invalid value for blkio-weight: 70000 is out of range",
            ),
        ] {
            assert_eq!(refused(args), expected);
        }
    }

    #[test]
    fn json_is_read_up_to_its_end() {
        let read = |text: &str| parse_resources(text.as_bytes());
        assert_eq!(read("{}").unwrap(), LinuxResources::default());
        assert_eq!(read("null").unwrap(), LinuxResources::default());
        assert_eq!(read("{} x").unwrap(), LinuxResources::default());
        assert_eq!(read(r#"{"memory":null,"cpu":null,"future":[1]}"#).unwrap(), LinuxResources::default());
        for (text, limit) in [("5", 5), ("0", 1), ("-1", -1)] {
            let text = format!(r#"{{"pids":{{"limit":{text}}}}} x"#);
            assert_eq!(read(&text).unwrap().pids().unwrap().limit(), limit, "{text}");
        }
        assert_eq!(read(r#"{"pids":{}}"#).unwrap().pids().unwrap().limit(), 0);
        for (text, part) in [
            ("", "EOF while parsing"),
            ("{", "EOF while parsing"),
            (r#"{"pids":"x"}"#, "/pids: invalid type"),
            (r#"{"cpu":{"shares":-1}}"#, "/cpu/shares: invalid value"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let error = parse_resources(io::repeat(b' ')).unwrap_err().to_string();
        assert_eq!(error, "is larger than 16777216 bytes");
    }
}
