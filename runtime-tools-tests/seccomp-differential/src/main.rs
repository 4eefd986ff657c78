//! Compares the filters that naru compiles with those of libseccomp behind runc's ENOSYS stub: for real engines' profiles and for seeded
//! random ones, the verdict for every number and for arguments around every compared value. `cargo test` in this directory runs it.
//!
//! NARU_LIBSECCOMP: the library to compare with (libseccomp.so.2). NARU_CONFIGS: a directory with engines' config.json files (../configs).
//! NARU_PROFILES: how many random profiles of each kind per native architecture (100). NARU_SEED. NARU_SHOW: print each difference.
//!
//! Half of the random profiles are plain: no two rules of a call can both match. There both must agree everywhere. In the other half anything
//! goes, and libseccomp has faults (verdicts that no matching rule asks for): its tree of comparisons loses or widens rules when it merges
//! comparisons of 64-bit arguments, and without SCMP_FLTATR_CTL_OPTIMIZE 2 a call that an architecture lacks can come first in the sorted
//! rules, is left out and takes the load of the number with it. So both are held against the rules themselves, too: naru must never
//! differ from them; libseccomp's faults are counted.

// The compiler's own sources; its parts that only naru's other modules or its unit tests use are unused here.
#[allow(dead_code, unused_imports)]
#[path = "../../../src/plan"]
mod plan {
    pub mod seccomp;
}
mod libseccomp;
mod measure;
mod profile;
mod runc;

use anyhow::{Context, Result, ensure};
use libseccomp::Library;
use oci_spec::runtime::LinuxSeccomp;
use plan::seccomp::interpret::{Call, check, run};
use plan::seccomp::{Filter, arch, compile_for, table};
use profile::{Profile, Random};
use runc::{Attempt, Expected, Oracle};
use std::collections::BTreeMap;

#[derive(Default, Debug)]
struct Counts {
    profiles: usize,
    /// libseccomp refuses the rules (EEXIST), as runc then does.
    refused: usize,
    /// libseccomp never ends.
    hung: usize,
    /// More instructions than the kernel takes, from both.
    too_long: usize,
    verdicts: usize,
    /// Several matching rules disagree; how often both chose the same.
    ambiguous: usize,
    agreed: usize,
    /// libseccomp's verdict is not what the only matching rules ask for.
    faults: usize,
    faulty_profiles: usize,
    /// Its verdict differs from naru's where the rules leave a choice.
    otherwise: usize,
}

fn main() -> Result<()> {
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let library = match Library::load(&variable("NARU_LIBSECCOMP", "libseccomp.so.2")) {
        Ok(library) => library,
        Err(e) => {
            println!("SKIP: no libseccomp to compare with: {e}");
            return Ok(());
        }
    };
    println!("libseccomp {}", library.version());
    let names = tables(&library)?;
    let configs = variable("NARU_CONFIGS", concat!(env!("CARGO_MANIFEST_DIR"), "/../configs"));
    for engine in ["docker-default", "podman-default"] {
        let path = format!("{configs}/{engine}.json");
        let Ok(text) = std::fs::read(&path) else {
            println!("SKIP: {engine}: cannot read {path}");
            continue;
        };
        let config: serde_json::Value = serde_json::from_slice(&text)?;
        let mut profile = Profile::from_json(&config["linux"]["seccomp"]);
        // An older libseccomp does not know the newest calls.
        profile.entries.iter_mut().for_each(|e| e.names.retain(|name| names.contains(&name.as_str())));
        let mut counts = Counts::default();
        compare(&library, &profile, "SCMP_ARCH_X86_64", &mut Random(7), &mut counts)?;
        println!("{engine}: {counts:?}");
        agree(&counts)?;
        measure::measure(&library, engine, &profile)?;
    }
    let count: usize = variable("NARU_PROFILES", "100").parse()?;
    let seed: u64 = variable("NARU_SEED", "1").parse()?;
    for native in arch::ALL {
        let abis: Vec<&'static str> = std::iter::once(native)
            .chain(native.compat.iter().copied())
            .filter_map(|a| runc::ARCHS.iter().find(|(_, token, _)| *token == a.name as u32))
            .map(|(name, _, _)| *name)
            .collect();
        if library.filter(0)?.arch(runc::token(abis[0])).is_err() {
            println!("SKIP: {}: unknown to this libseccomp", abis[0]);
            continue;
        }
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let everywhere: Vec<&str> = names
            .iter()
            .copied()
            // On other machines libseccomp goes by way of this machine's numbers, and two calls that this one lacks share one there.
            .filter(|name| library.resolve(name).is_some_and(|n| n >= 0))
            .filter(|name| abis.iter().all(|abi| arch::number(runc::token(abi), name).is_some()))
            .collect();
        let (mut plain, mut wild) = (Counts::default(), Counts::default());
        for _ in 0..count {
            let profile = random.plain(&abis, &everywhere);
            compare(&library, &profile, abis[0], &mut random, &mut plain)?;
            let profile = random.wild(&abis, &names);
            compare(&library, &profile, abis[0], &mut random, &mut wild)?;
        }
        println!("{}: plain: {plain:?}", abis.join(" "));
        agree(&plain)?;
        println!("{}: wild: {wild:?}", abis.join(" "));
    }
    println!("ok");
    Ok(())
}

fn agree(counts: &Counts) -> Result<()> {
    ensure!(
        counts.faults == 0 && counts.otherwise == 0 && counts.refused + counts.hung == 0,
        "libseccomp differs"
    );
    Ok(())
}

/// The numbers in naru's table against libseccomp's; the names both know.
fn tables(library: &Library) -> Result<Vec<&'static str>> {
    let mut names: Vec<&str> =
        table::NAMES.iter().copied().filter(|name| library.resolve(name).is_some()).collect();
    let newer: Vec<&str> =
        table::NAMES.iter().copied().filter(|name| library.resolve(name).is_none()).collect();
    println!("names: {} known to both; unknown to this libseccomp: {}", names.len(), newer.join(" "));
    let mut differ = BTreeMap::<String, Vec<&str>>::new();
    let mut same = 0;
    for name in &names {
        for (arch, token, _) in runc::ARCHS {
            let theirs = library.resolve_arch(token, name);
            let ours = arch::number(token, name);
            match theirs {
                // Known, but this architecture lacks it or libseccomp keeps the number to itself.
                Some(n) if n < 0 && (ours.is_none() || n > -300) => {}
                Some(n) if n >= 0 && ours == Some(n as u32) => same += 1,
                // An architecture this libseccomp does not know.
                None => {}
                Some(n) => differ
                    .entry(format!("{arch}: libseccomp {}, naru {ours:?}", n.max(-1)))
                    .or_default()
                    .push(name),
            }
        }
    }
    println!("numbers: {same} equal");
    for (what, names) in &differ {
        println!("  differs: {what}: {}", names.join(" "));
    }
    let strange: Vec<&str> = differ.into_values().flatten().collect();
    names.retain(|name| !strange.contains(name));
    Ok(names)
}

fn compare(
    library: &Library,
    profile: &Profile,
    native: &'static str,
    random: &mut Random,
    counts: &mut Counts,
) -> Result<()> {
    counts.profiles += 1;
    let json = profile.json();
    let spec: LinuxSeccomp = serde_json::from_value(json.clone())?;
    let native_arch =
        arch::ALL.iter().find(|a| a.name as u32 == runc::token(native)).context("a native architecture")?;
    let ours = compile_for(&spec, native_arch);
    let theirs = match runc::attempt(library, profile, native).with_context(|| json.to_string())? {
        Attempt::Program(program) => Some(program),
        Attempt::Refused => {
            counts.refused += 1;
            None
        }
        Attempt::Hung => {
            counts.hung += 1;
            None
        }
    };
    let program = match ours {
        Ok(Some(Filter { program, .. })) => program,
        Ok(None) => return Ok(()),
        Err(e) if e.to_string().contains("the kernel takes 4096") => {
            counts.too_long += 1;
            ensure!(theirs.is_none_or(|theirs| theirs.len() > 4096), "{e}, but libseccomp's fits");
            return Ok(());
        }
        Err(e) => return Err(e.context(json.to_string())),
    };
    ensure!(check(&program), "the kernel would refuse the program for {json}");
    let faults = counts.faults;
    let mut listed = vec![native];
    listed.extend(profile.archs.iter().filter(|a| runc::audit(a) != runc::audit(native)));
    for arch in listed {
        let oracle = Oracle::new(library, profile, arch);
        let mut one = |number: u32, args: [u64; 6]| -> Result<()> {
            let call = Call { number, arch: runc::audit(arch), args };
            let ours = run(&program, &call).0;
            let expected = oracle.expected(number, &args);
            counts.verdicts += 1;
            let right = |verdict: u32| match &expected {
                Expected::One(one) => verdict == *one,
                Expected::Several(several) => several.contains(&verdict),
            };
            ensure!(right(ours), "{call:x?}: naru says {ours:x}, the rules {expected:x?}: {json}");
            let Some(theirs) = &theirs else { return Ok(()) };
            let theirs = oracle.stub(number).unwrap_or_else(|| run(theirs, &call).0);
            let ambiguous = matches!(expected, Expected::Several(_));
            counts.ambiguous += usize::from(ambiguous);
            counts.agreed += usize::from(ambiguous && theirs == ours);
            match right(theirs) {
                false => counts.faults += 1,
                true => counts.otherwise += usize::from(theirs != ours),
            }
            if theirs != ours && std::env::var_os("NARU_SHOW").is_some() {
                println!("{call:x?}: naru {ours:x}, libseccomp {theirs:x}, rules {expected:x?}: {json}");
            }
            Ok(())
        };
        let base = match arch {
            "SCMP_ARCH_MIPSEL" => 4000,
            "SCMP_ARCH_MIPSEL64" => 5000,
            "SCMP_ARCH_MIPSEL64N32" => 6000,
            _ => 0,
        };
        let ranges = [
            0..600,
            base..base + 600,
            0x4000_0000..0x4000_0000 + 600,
            0x0f_0000..0x0f_0008,
            0xc000_0000..0xc000_0004,
        ];
        let huge = [0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, u32::MAX - 1, u32::MAX, 0x0010_0000];
        for number in ranges.into_iter().flatten().chain(huge) {
            one(number, [0; 6])?;
            one(number, [u64::MAX; 6])?;
        }
        for (number, values) in oracle.conditional() {
            // Each value of each argument, and random combinations.
            for (index, list) in values.iter().enumerate() {
                for value in list {
                    let mut args = [0; 6];
                    args[index] = *value;
                    one(number, args)?;
                    args = [u64::MAX; 6];
                    args[index] = *value;
                    one(number, args)?;
                }
            }
            for _ in 0..100 {
                one(number, std::array::from_fn(|index| *random.pick(&values[index])))?;
            }
        }
    }
    // An architecture that cannot be: killed by both.
    let call = Call { number: 1, arch: 0x1234, args: [0; 6] };
    ensure!(run(&program, &call).0 == 0, "a wrong architecture is not killed");
    if let Some(theirs) = &theirs {
        ensure!(run(theirs, &call).0 == 0, "libseccomp does not kill a wrong architecture");
    }
    counts.faulty_profiles += usize::from(counts.faults > faults);
    Ok(())
}
