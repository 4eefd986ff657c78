//! Annotations `org.systemd.property.*`: texts → D-Bus values → messages.

use crate::cgroup::systemd::message::{self, Call, FIXED, Message};
use crate::cgroup::systemd::text;
use crate::cgroup::systemd::value::Value;
use std::collections::HashMap;

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (name, text) = text.split_once('=').unwrap_or(("TimeoutStopSec", &text));
    let annotations = HashMap::from([(format!("{}{name}", text::PREFIX), text.to_owned())]);
    match text::properties(&annotations) {
        Ok(all) => check(all),
        Err(error) => super::names_field(&error),
    }
}

/// They can be sent: the message is as long as it says and its types are such that a bus reads them.
pub fn check(properties: Vec<(String, Value)>) {
    let properties = properties
        .into_iter()
        .map(|(name, value)| Value::Struct(vec![Value::Text(name), Value::Variant(Box::new(value))]))
        .collect();
    let arguments = [Value::text("x.scope"), Value::Array("(sv)".into(), properties)];
    arguments.iter().for_each(|argument| well_formed(argument, 0));
    let call =
        Call { destination: "a.b", path: "/a", interface: "a.b.C", member: "Do", arguments: &arguments };
    let bytes = call.bytes(7);
    let length = message::length(&bytes[..FIXED]).expect("a length");
    assert_eq!(length, bytes.len());
    assert_eq!(message::parse(&bytes).expect("a message"), Message::Other);
}

fn well_formed(value: &Value, depth: usize) {
    assert!(depth < 32, "nested too deep");
    match value {
        Value::Text(text) | Value::Path(text) => assert!(!text.contains('\0'), "{text:?}"),
        Value::Signature(text) => {
            assert!(text.len() <= 255, "{text:?}");
            assert!(text.is_empty() || is_type(&format!("({text})")), "{text:?} is a signature");
        }
        Value::Array(element, items) => {
            for item in items {
                assert_eq!(item.signature(), *element, "an array has one type");
                well_formed(item, depth + 1);
            }
        }
        Value::Struct(fields) => {
            assert!(!fields.is_empty(), "a tuple has a field");
            fields.iter().for_each(|field| well_formed(field, depth + 1));
        }
        Value::Entry(entry) => {
            well_formed(&entry.0, depth + 1);
            well_formed(&entry.1, depth + 1);
        }
        Value::Variant(inner) => {
            assert!(inner.signature().len() <= 255, "a type has at most 255 bytes");
            assert!(is_type(&inner.signature()), "{:?} is a type", inner.signature());
            well_formed(inner, depth + 1);
        }
        _ => {}
    }
}

/// One type of D-Bus: what it is made of is replaced, `s` for a basic type and `c` for any other, until nothing changes.
fn is_type(signature: &str) -> bool {
    let basic = |c: char| if "ybnqiuxtdog".contains(c) { 's' } else { c };
    let mut now = signature.replace('c', "?").chars().map(basic).collect::<String>().replace('v', "c");
    loop {
        let mut next = now.clone();
        for (from, to) in [("a{ss}", "c"), ("a{sc}", "c"), ("as", "c"), ("ac", "c")] {
            next = next.replace(from, to);
        }
        // What a structure holds comes down to one `c`.
        for (from, to) in [("(s", "(c"), ("(cs", "(c"), ("(cc", "(c"), ("(c)", "c")] {
            next = next.replace(from, to);
        }
        if next == now {
            return now == "s" || now == "c";
        }
        now = next;
    }
}
