//! Profiles: their form here, their JSON, and random ones.

use crate::libseccomp::{ACTIONS, OPS};
use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub struct Profile {
    pub default: Action,
    pub archs: Vec<&'static str>,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Action {
    pub name: &'static str,
    pub errno: Option<u16>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub names: Vec<String>,
    pub action: Action,
    pub args: Vec<Arg>,
}

#[derive(Clone, Copy, Debug)]
pub struct Arg {
    pub index: u32,
    pub op: &'static str,
    pub value: u64,
    pub value_two: u64,
}

impl Action {
    /// The `SECCOMP_RET_*` value; EPERM where no errno is given.
    pub fn ret(&self) -> u32 {
        let base = ACTIONS.iter().find(|(name, _)| *name == self.name).expect("a known action").1;
        match self.name {
            "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE" => base | u32::from(self.errno.unwrap_or(1)),
            _ => base,
        }
    }
}

impl Profile {
    pub fn json(&self) -> Value {
        let args = |args: &[Arg]| {
            args.iter()
                .map(|a| json!({"index": a.index, "op": a.op, "value": a.value, "valueTwo": a.value_two}))
                .collect::<Vec<_>>()
        };
        let entry = |e: &Entry| {
            let mut value = json!({"names": e.names, "action": e.action.name, "args": args(&e.args)});
            if let Some(errno) = e.action.errno {
                value["errnoRet"] = errno.into();
            }
            value
        };
        let mut value = json!({
            "defaultAction": self.default.name,
            "architectures": self.archs,
            "listenerPath": "/run/agent",
            "syscalls": self.entries.iter().map(entry).collect::<Vec<_>>(),
        });
        if let Some(errno) = self.default.errno {
            value["defaultErrnoRet"] = errno.into();
        }
        value
    }

    /// Reads what an engine wrote.
    pub fn from_json(seccomp: &Value) -> Profile {
        let array = |v: &Value| v.as_array().cloned().unwrap_or_default();
        let action = |v: &Value, errno: &Value| Action {
            name: ACTIONS.iter().find(|(name, _)| v == name).expect("a known action").0,
            errno: errno.as_u64().map(|e| e as u16),
        };
        let arg = |v: &Value| Arg {
            index: v["index"].as_u64().unwrap_or(0) as u32,
            op: OPS.iter().find(|op| v["op"] == **op).expect("a known operator"),
            value: v["value"].as_u64().unwrap_or(0),
            value_two: v["valueTwo"].as_u64().unwrap_or(0),
        };
        let entry = |v: &Value| Entry {
            names: array(&v["names"]).iter().filter_map(|n| n.as_str().map(str::to_owned)).collect(),
            action: action(&v["action"], &v["errnoRet"]),
            args: array(&v["args"]).iter().map(arg).collect(),
        };
        let known =
            |v: &Value| crate::runc::ARCHS.iter().find(|(name, _, _)| v == name).map(|(name, _, _)| *name);
        Profile {
            default: action(&seccomp["defaultAction"], &seccomp["defaultErrnoRet"]),
            archs: array(&seccomp["architectures"]).iter().filter_map(known).collect(),
            entries: array(&seccomp["syscalls"]).iter().map(entry).collect(),
        }
    }
}

/// xorshift64*, seeded: every run tries the same profiles.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn action(&mut self, default: bool) -> Action {
        let name = loop {
            let name = ACTIONS[self.below(ACTIONS.len())].0;
            if !(default && name == "SCMP_ACT_NOTIFY") {
                break name;
            }
        };
        // Profiles are mostly about these two.
        let name = if self.chance(50) { *self.pick(&["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"]) } else { name };
        let takes = matches!(name, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE");
        let errno = if takes && self.chance(50) { Some(*self.pick(&[1, 2, 13, 22, 38])) } else { None };
        Action { name, errno }
    }

    fn value(&mut self, near: &mut Vec<u64>) -> u64 {
        if !near.is_empty() && self.chance(40) {
            let v = *self.pick(near);
            return *self.pick(&[
                v,
                v.wrapping_add(1),
                v ^ (1 << 32),
                v.wrapping_add(5 << 32),
                v & 0xffff_ffff,
            ]);
        }
        let v = match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => 0xffff_ffff,
            3 => 0x1_0000_0000,
            4 => self.next(),
            5 => 1 << self.below(64),
            _ => self.next() % 64,
        };
        near.push(v);
        v
    }

    fn args(&mut self, near: &mut Vec<u64>) -> Vec<Arg> {
        let count = *self.pick(&[1, 1, 1, 2, 2, 3]);
        (0..count)
            .map(|_| {
                // Few arguments, so that rules meet; sometimes twice the same one.
                let index = if self.chance(80) { self.below(3) } else { self.below(6) } as u32;
                let op = *self.pick(&OPS);
                let value_two = if self.chance(70) { self.value(near) } else { 0 };
                Arg { index, op, value: self.value(near), value_two }
            })
            .collect()
    }

    /// A profile in which no two rules of a call can both match, so that there is one right verdict and libseccomp's tree has nothing to
    /// merge. `names`: calls that all of `archs` have.
    pub fn plain(&mut self, archs: &[&'static str], names: &[&str]) -> Profile {
        let default = self.action(true);
        let mut pool = names.to_vec();
        let mut near = Vec::new();
        let mut entries = Vec::new();
        for _ in 0..*self.pick(&[1, 3, 8, 30]) {
            let count = *self.pick(&[1, 2, 5, 20]);
            if pool.len() < count {
                break;
            }
            let mut names: Vec<String> =
                (0..count).map(|_| pool.swap_remove(self.below(pool.len())).to_owned()).collect();
            let action = self.action(false);
            // Not for a call that socketcall or ipc may carry: conditions on argument 0 are lost there, so its rules would meet.
            let carried =
                crate::plan::seccomp::arch::id(&names[0]).and_then(crate::plan::seccomp::arch::carried);
            if self.chance(15) && carried.is_none() {
                // One argument, several values, each with its action.
                let (name, index) = (names.remove(0), self.below(6) as u32);
                let mut values: Vec<u64> = (0..5).map(|_| self.value(&mut near)).collect();
                // Also as 32-bit architectures see them.
                values.sort_unstable_by_key(|v| *v as u32);
                values.dedup_by_key(|v| *v as u32);
                for value in values {
                    let action = self.action(false);
                    let args = vec![Arg { index, op: "SCMP_CMP_EQ", value, value_two: 0 }];
                    entries.push(Entry { names: vec![name.clone()], action, args });
                }
            }
            let mut args = if self.chance(60) { self.args(&mut near) } else { Vec::new() };
            args.sort_by_key(|a| a.index);
            args.dedup_by_key(|a| a.index);
            entries.push(Entry { names, action, args });
        }
        entries.retain(|e| e.action.name != "SCMP_ACT_NOTIFY" || !e.names.iter().any(|name| name == "write"));
        let archs = archs.iter().filter(|_| self.chance(70)).copied().collect();
        Profile { default, archs, entries }
    }

    /// A profile for some of `archs` with calls out of `names`, where anything goes.
    pub fn wild(&mut self, archs: &[&'static str], names: &[&str]) -> Profile {
        let default = self.action(true);
        // Also names of no architecture, and few enough calls that several rules name the same.
        let pool: Vec<&str> = (0..*self.pick(&[3, 8, 30, 200])).map(|_| *self.pick(names)).collect();
        let same = self.chance(40).then(|| self.action(false));
        let mut near = Vec::new();
        let entries = (0..*self.pick(&[1, 3, 6, 20]))
            .map(|_| {
                let count = *self.pick(&[1, 1, 2, 10, pool.len()]);
                let mut names: Vec<String> = (0..count).map(|_| self.pick(&pool).to_string()).collect();
                if self.chance(5) {
                    names.push("no_such_call".to_owned());
                }
                let action = same.unwrap_or_else(|| self.action(false));
                if action.name == "SCMP_ACT_NOTIFY" {
                    names.retain(|name| name != "write");
                }
                let args = if self.chance(60) { self.args(&mut near) } else { Vec::new() };
                Entry { names, action, args }
            })
            .collect();
        let archs = archs.iter().filter(|_| self.chance(70)).copied().collect();
        Profile { default, archs, entries }
    }
}
