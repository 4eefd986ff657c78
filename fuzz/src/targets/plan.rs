//! Configurations that parse: some of our own, with fields changed, left out, repeated and exchanged, go through all that
//! `config` does.

use super::config;
use crate::input::Input;
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

const BASES: [&str; 3] = [
    include_str!("../../corpus/config/plain.json"),
    include_str!("../../corpus/config/everything.json"),
    include_str!("../../corpus/config/user-namespace.json"),
];

const WORDS: [&str; 40] = [
    "",
    "/",
    "..",
    "/a",
    "a/../b",
    "/proc",
    "/proc/self",
    "/dev",
    "/dev/pts",
    "/sys",
    "/sys/fs/cgroup",
    "tmpfs",
    "sysfs",
    "proc",
    "cgroup",
    "bind",
    "rbind",
    "ro",
    "idmap",
    "remount",
    "tmpcopyup",
    "a=b",
    "PATH=/bin:",
    "HOME=",
    "0-3,7",
    "65536",
    "CAP_NET_RAW",
    "CAP_FUTURE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_NOTIFY",
    "SCMP_CMP_GT",
    "SCMP_ARCH_X32",
    "write",
    "user",
    "network",
    "time",
    "rwm",
    "a\u{0}b",
    "net.ipv4.ip_forward",
    "/proc/1/ns/net",
];

pub fn run(data: &[u8]) {
    let bases = {
        static PARSED: OnceLock<Vec<Value>> = OnceLock::new();
        PARSED.get_or_init(|| BASES.iter().map(|text| serde_json::from_str(text).expect("our own")).collect())
    };
    let mut input = Input(data);
    let mut config = input.pick(bases).clone();
    let mut edits = 0;
    while !input.is_empty() && edits < 64 {
        let mut places = Vec::new();
        list(&config, String::new(), &mut places);
        let place = input.pick(&places).clone();
        let other = input.pick(&places).clone();
        edit(&mut config, &place, &other, &mut input);
        edits += 1;
    }
    config::run(&serde_json::to_vec(&config).expect("JSON"));
}

/// The pointers of all values.
fn list(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                list(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), places);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                list(value, format!("{at}/{index}"), places);
            }
        }
        _ => {}
    }
    places.push(at);
}

fn edit(config: &mut Value, place: &str, other: &str, input: &mut Input) {
    let kind = input.byte() % 8;
    let copied = config.pointer(other).filter(|value| size(value) < 2000).cloned();
    let (parent, key) = place.rsplit_once('/').unwrap_or_default();
    match kind {
        // Leave out.
        0 => match config.pointer_mut(parent) {
            Some(Value::Object(fields)) => drop(fields.remove(&key.replace("~1", "/").replace("~0", "~"))),
            Some(Value::Array(items)) => {
                if let Ok(index) = key.parse::<usize>() {
                    items.remove(index);
                }
            }
            _ => {}
        },
        // Add to a list or an object.
        1 | 2 => {
            let new = if kind == 1 { copied.unwrap_or(Value::Null) } else { value(input) };
            match config.pointer_mut(place) {
                Some(Value::Array(items)) if items.len() < 500 => items.push(new),
                Some(Value::Object(fields)) => drop(fields.insert(input.text(&WORDS), new)),
                Some(old) => *old = new,
                None => {}
            }
        }
        3 => {
            if let (Some(new), Some(old)) = (copied, config.pointer_mut(place)) {
                *old = new;
            }
        }
        // The same kind of value with another content.
        _ => {
            let Some(old) = config.pointer_mut(place) else { return };
            *old = match &*old {
                Value::Number(_) if input.one_in(4) => json!(-(input.number() as i64 >> 1)),
                Value::Number(_) => json!(input.number()),
                Value::String(_) => json!(input.text(&WORDS)),
                Value::Bool(on) => json!(!on),
                _ => value(input),
            };
        }
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields.values().map(|value| 1 + size(value)).sum(),
        Value::Array(items) => items.iter().map(|value| 1 + size(value)).sum(),
        _ => 1,
    }
}

fn value(input: &mut Input) -> Value {
    match input.byte() % 8 {
        0 => Value::Null,
        1 => json!(true),
        2 => json!([]),
        3 => Map::new().into(),
        4 | 5 => json!(input.number()),
        _ => json!(input.text(&WORDS)),
    }
}
