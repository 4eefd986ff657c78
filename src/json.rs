//! JSON as users write it: which field a parse error is about, and names from the future.
//!
//! All but [`list_for_object`] and [`seccomp`] run only once parsing has failed, so they may take their time.

use oci_spec::runtime::{LinuxPids, LinuxResources};
use std::ops::Range;

/// The JSON pointer of the innermost value that holds or ends at the byte `offset` of `text`; empty at the top.
pub fn pointer_at(text: &[u8], offset: usize) -> String {
    path_at(text, offset)
        .iter()
        .map_while(|step| match step {
            Step::Key(Some(key)) => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Step::Key(None) => None,
            Step::Index(index) => Some(format!("/{index}")),
        })
        .collect()
}

/// The same as steps, of which a text that is not JSON may have very many.
fn path_at(text: &[u8], offset: usize) -> Vec<Step> {
    let mut path: Vec<Step> = Vec::new();
    let mut at = 0;
    let mut last_string = String::new();
    while at < offset.min(text.len()) {
        match text[at] {
            b'{' => path.push(Step::Key(None)),
            b'[' => path.push(Step::Index(0)),
            b'}' | b']' => {
                // A mistake that shows at the end of a container is the container's.
                if at + 1 >= offset {
                    break;
                }
                path.pop();
            }
            b'"' => {
                let end = string_end(text, at);
                last_string = String::from_utf8_lossy(&text[at + 1..end.min(text.len())]).into_owned();
                at = end;
            }
            b':' => {
                if let Some(Step::Key(key)) = path.last_mut() {
                    *key = Some(std::mem::take(&mut last_string));
                }
            }
            b',' => {
                if at + 1 >= offset {
                    break;
                }
                match path.last_mut() {
                    Some(Step::Index(index)) => *index += 1,
                    Some(Step::Key(key)) => *key = None,
                    None => {}
                }
            }
            _ => {}
        }
        at += 1;
    }
    // A container that is only just opened has nothing in it yet that could be wrong.
    if at > 0 && matches!(text.get(at - 1), Some(b'[')) {
        path.pop();
    }
    path
}

/// Fields that hold an object. serde would fill one from a list too, in the order of its fields.
const OBJECTS: [&[u8]; 24] = [
    b"root",
    b"process",
    b"linux",
    b"hooks",
    b"user",
    b"capabilities",
    b"consoleSize",
    b"scheduler",
    b"ioPriority",
    b"execCPUAffinity",
    b"resources",
    b"memory",
    b"cpu",
    b"pids",
    b"blockIO",
    b"network",
    b"unified",
    b"seccomp",
    b"intelRdt",
    b"memoryPolicy",
    b"personality",
    b"annotations",
    b"monotonic",
    b"boottime",
];

/// Fields that hold a list of objects without a field that must be there.
const LISTS: [&str; 9] = [
    "devices",
    "uidMappings",
    "gidMappings",
    "hugepageLimits",
    "priorities",
    "throttleReadBpsDevice",
    "throttleWriteBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteIOPSDevice",
];

/// Is the `[` at this place an entry of one of those? It looks like an entry of a list, or is part of a string.
fn is_in_list_of_objects(text: &[u8], at: usize) -> bool {
    let mut from = 0;
    while let Some(quote) = text[from..at].iter().position(|&byte| byte == b'"') {
        from = string_end(text, from + quote) + 1;
        if from > at {
            return false;
        }
    }
    let path = path_at(text, at + 1);
    matches!(path.as_slice(), [.., Step::Key(Some(list)), Step::Index(_)] if LISTS.contains(&list.as_str()))
}

/// The offset just behind the first `[` that stands where an object belongs. One pass over the text, some 5 us for
/// Docker's configuration.
pub fn list_for_object(plain: &str) -> Option<usize> {
    let text = plain.as_bytes();
    /// How much is looked through for lists in lists, which also a string may seem to hold, bytes.
    const LOOKS_MAX: usize = 64 << 20;
    let looks = std::cell::Cell::new(0);
    let before = |end: usize| text[..end].iter().rposition(|byte| !byte.is_ascii_whitespace());
    let object = |at: usize| {
        let Some(colon) = before(at) else { return true };
        if matches!(text[colon], b',' | b'[') {
            // Each look costs a pass over what stands before: no configuration has many such places.
            looks.set(looks.get() + at);
            return looks.get() <= LOOKS_MAX && is_in_list_of_objects(text, at);
        }
        if text[colon] != b':' {
            return false;
        }
        let Some(end) = before(colon).filter(|&end| text[end] == b'"') else { return false };
        let Some(quote) = text[..end].iter().rposition(|&byte| byte == b'"') else { return false };
        // Inside a string the quotes are escaped, so the name would end with a backslash.
        OBJECTS.contains(&&text[quote + 1..end])
    };
    let mut from = 0;
    while let Some(distance) = plain[from..].find('[') {
        from += distance + 1;
        if object(from - 1) {
            return Some(from);
        }
    }
    None
}

/// Where the object `/linux/seccomp` stands, if there is one: sure only once both the text without it and it itself have been
/// parsed. One pass over what stands before it and over itself; a configuration without one is searched for the word only.
pub fn seccomp(plain: &str) -> Option<Range<usize>> {
    const NAME: &str = "\"seccomp\"";
    if !plain.contains(NAME) {
        return None;
    }
    let text = plain.as_bytes();
    let after_space =
        |at: usize| at + text[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    // How many containers are open, and the last string directly in the outermost.
    let (mut depth, mut outer) = (0usize, 0..0);
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                let end = string_end(text, at);
                if depth == 1 {
                    outer = at..end + 1;
                }
                if depth == 2
                    && plain.get(at..=end) == Some(NAME)
                    && plain.get(outer.clone()) == Some("\"linux\"")
                {
                    let colon = after_space(end + 1);
                    if text.get(colon) == Some(&b':') {
                        let start = after_space(colon + 1);
                        return (text.get(start) == Some(&b'{'))
                            .then(|| object_end(plain, start))?
                            .map(|end| start..end);
                    }
                }
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The offset just behind the object that opens at `start`.
fn object_end(plain: &str, start: usize) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_str(&plain[start..]).into_iter::<serde::de::IgnoredAny>();
    values.next()?.ok()?;
    Some(start + values.byte_offset())
}

/// Is `pids.limit` 0 here, which the crate that parses it also says of one that is absent?
pub fn has_unclear_limit(resources: &LinuxResources) -> bool {
    resources.pids().as_ref().is_some_and(|pids| pids.limit() == 0)
}

/// A limit of 0 processes that was really asked for (since version 1.3 of the specification) becomes 1: systemd takes no
/// 0, and none could be there anyway. `json` is what was parsed, and `pointer` where in it the limit would be.
pub fn set_explicit_limit(resources: &mut LinuxResources, json: &serde_json::Value, pointer: &str) {
    if json.pointer(pointer).is_some_and(|limit| limit.as_i64() == Some(0)) {
        let mut pids = LinuxPids::default();
        pids.set_limit(1);
        resources.set_pids(Some(pids));
    }
}

/// How runc begins what it says of a parse error at `pointer`, where it checks by itself what here is a matter of types.
pub fn runc_words(pointer: &str, error: &str) -> &'static str {
    match pointer.strip_prefix("/linux/memoryPolicy") {
        None => "",
        Some(_) if error.contains("`mode`") => "invalid memory policy mode: ",
        Some("/mode") => "invalid memory policy mode: ",
        Some("/nodes") => "invalid memory policy nodes: ",
        Some(rest) if rest.starts_with("/flags") => "invalid memory policy flag: ",
        Some(_) => "invalid memory policy: ",
    }
}

enum Step {
    Key(Option<String>),
    Index(usize),
}

/// The offset of the closing quote of the string that opens at `start`; beyond the text if there is none.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// The byte offset of a line and column, both from 1, as serde_json counts them.
pub fn offset_of(text: &[u8], line: usize, column: usize) -> usize {
    let start = text
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1)
        .nth(line.wrapping_sub(2))
        .unwrap_or(0);
    let end = (start + column).min(text.len());
    // What the parser has not yet taken is what it did not like: of an element, not of the list it stands in.
    end + usize::from(end > 0 && matches!(text[end - 1], b'[' | b',') && end < text.len())
}

/// What the spec or runc allows and the crate oci-spec does not read, in words that it does: fields left out that then are
/// 0, two names of scheduler flags, lists of processors with spaces, empty elements or no text. Together with the names
/// of capabilities that were dropped: a newer engine may list some that this build does not know, and a capability that
/// the kernel lacks cannot be granted anyway (spec: a warning, no error). Nothing if there is nothing of the kind.
pub fn adapted(text: &[u8]) -> Option<(Vec<u8>, Vec<String>)> {
    let mut config: serde_json::Value = serde_json::from_str(std::str::from_utf8(text).ok()?).ok()?;
    let mut dropped = Vec::new();
    let mut changed = without_nulls(&mut config);
    for pointer in ["/process", ""] {
        if let Some(process) = config.pointer_mut(pointer).and_then(serde_json::Value::as_object_mut)
            && process.contains_key("cwd")
        {
            changed |= complete(process);
        }
    }
    for pointer in ["/process/capabilities", "/capabilities"] {
        let Some(sets) = config.pointer_mut(pointer).and_then(|sets| sets.as_object_mut()) else { continue };
        for set in sets.values_mut().filter_map(serde_json::Value::as_array_mut) {
            set.retain(|name| {
                let Some(name) = name.as_str() else { return true };
                let known = crate::plan::process::capability_bit(name) != 0;
                // Only what looks like a capability: anything else is a mistake to be told.
                let plausible = !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
                if !known && plausible {
                    dropped.push(name.to_string());
                }
                known || !plausible
            });
        }
    }
    if dropped.is_empty() && !changed {
        return None;
    }
    dropped.sort_unstable();
    dropped.dedup();
    Some((serde_json::to_vec(&config).ok()?, dropped))
}

/// Drops the members that are null: to Go, in which engines and runc are written, they are absent. True if there were any.
pub fn without_nulls(value: &mut serde_json::Value) -> bool {
    match value {
        serde_json::Value::Object(members) => {
            let before = members.len();
            members.retain(|_, member| !member.is_null());
            let mut changed = members.len() < before;
            for member in members.values_mut() {
                changed |= without_nulls(member);
            }
            changed
        }
        serde_json::Value::Array(list) => {
            list.iter_mut().fold(false, |changed, one| without_nulls(one) | changed)
        }
        _ => false,
    }
}

/// Completes a `process`: true if there was something to do.
fn complete(process: &mut serde_json::Map<String, serde_json::Value>) -> bool {
    let mut changed = false;
    let mut zero = |object: &mut serde_json::Map<String, serde_json::Value>, field: &str| {
        if !object.contains_key(field) {
            object.insert(field.into(), 0.into());
            changed = true;
        }
    };
    let user = process.entry("user").or_insert_with(|| serde_json::Map::new().into());
    if let Some(user) = user.as_object_mut() {
        zero(user, "uid");
        zero(user, "gid");
    }
    if let Some(priority) = process.get_mut("ioPriority").and_then(serde_json::Value::as_object_mut) {
        zero(priority, "priority");
    }
    let flags = process.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags"));
    for flag in flags.and_then(serde_json::Value::as_array_mut).into_iter().flatten() {
        let read_as = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = read_as.into();
        changed = true;
    }
    let lists = process.get_mut("execCPUAffinity").and_then(serde_json::Value::as_object_mut);
    for list in lists.into_iter().flat_map(|lists| lists.values_mut()) {
        let Some(text) = list.as_str() else { continue };
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        let plain = parts.join(",");
        // Commas alone name nothing, which is a mistake to be told.
        if plain != text && !(plain.is_empty() && text.contains(',')) || text.is_empty() {
            *list = if plain.is_empty() { serde_json::Value::Null } else { plain.into() };
            changed = true;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(text: &str) -> String {
        let error = serde_json::from_str::<oci_spec::runtime::Spec>(text).err().unwrap();
        pointer_at(text.as_bytes(), offset_of(text.as_bytes(), error.line(), error.column()))
    }

    #[test]
    fn errors_lead_to_their_field() {
        for (text, wanted) in [
            (r#"{"ociVersion":"1.0.0","process":{"args":"sh"}}"#, "/process/args"),
            (r#"{"process":{"cwd":"/","user":{"uid":-1}}}"#, "/process/user/uid"),
            ("{\"process\":{\"cwd\":\"/\",\n\"args\":[\"a\",\n1]}}", "/process/args/1"),
            (r#"{"linux":{"namespaces":[{"type":"pid"},{"type":"x"}]}}"#, "/linux/namespaces/1/type"),
            (r#"{"linux":"x"}"#, "/linux"),
            (r#"{"hostname":[]}"#, "/hostname"),
            (r#"{"process":{"cwd":"/","args":[{},"a"]}}"#, "/process/args/0"),
            (r#"{"process":{"cwd":"/","args":["a",["x"]]}}"#, "/process/args/1"),
            (r#"{"process":{"cwd":"/","args":["a",{"x":1}]}}"#, "/process/args/1"),
            (r#"{"process":{"cwd":"/","args":["a", 1.5]}}"#, "/process/args/1"),
        ] {
            assert_eq!(pointer(text), wanted, "{text}");
        }
    }

    #[test]
    fn the_seccomp_profile_is_found_where_it_is() {
        let found = |text: &'static str| seccomp(text).map(|range| &text[range]);
        for (text, wanted) in [
            (r#"{"linux":{"seccomp":{"a":[{}]},"x":1}}"#, Some(r#"{"a":[{}]}"#)),
            ("{\"x\": [{}], \"linux\": {\"y\": {},\n \"seccomp\" : {\"a\": \"}\"} }}", Some(r#"{"a": "}"}"#)),
            (r#"{"a\"":"{","linux":{"seccomp":{"\\":"}"}}}"#, Some(r#"{"\\":"}"}"#)),
            (r#"{"linux":{"x":"seccomp","seccomp":{}}}"#, Some("{}")),
            (r#"{"linux":{"x":{"seccomp":{}}}}"#, None),
            (r#"{"process":{"seccomp":{}}}"#, None),
            (r#"{"x":{"linux":{"seccomp":{}}}}"#, None),
            (r#"{"linux":1,"x":{"seccomp":{}}}"#, None),
            (r#"{"seccomp":{}}"#, None),
            (r#"{"linux":{"seccomp":null}}"#, None),
            (r#"{"linux":{"seccomp":[]}}"#, None),
            (r#"{"linux":{"seccomp":{"#, None),
            (r#"{"linux":{"seccomp":{"x"#, None),
            (r#"{"linux":{"seccomp""#, None),
            (r#"{"linux":{"seccomp":"#, None),
            (r#"}{"linux":{"seccomp":{}}}"#, None),
            ("", None),
        ] {
            assert_eq!(found(text), wanted, "{text}");
        }
    }

    #[test]
    fn strings_do_not_confuse_it() {
        let text = br#"{"a":"},{[\"","b/c":{"d":1}}"#;
        assert_eq!(pointer_at(text, text.len() - 3), "/b~1c/d");
    }

    #[test]
    fn a_list_is_no_object() {
        for (text, found) in [
            (r#"[]"#, true),
            (r#"{"hooks":[]}"#, true),
            (r#"{"linux":{"resources" : [ ]}}"#, true),
            (r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#, false),
            (r#"{"process":{"args":["\"hooks\":[]"]}}"#, false),
            (r#"{"linux":{"devices":[{"path":"/a"}, [1]]}}"#, true),
            (r#"{"linux":{"uidMappings":[[]]}}"#, true),
            (r#"{"linux":{"timeOffsets":{"boottime":[]}}}"#, true),
            (r#"{"process":{"args":["sh","-c","[[ -f x ]],[","a"]},"devices":["x,[y",[[1]]]}"#, true),
            (r#"{"process":{"args":["sh","-c","[[ -f x ]],[","a"]},"other":[[1],[2]]}"#, false),
        ] {
            assert_eq!(list_for_object(text).is_some(), found, "{text}");
        }
        let text = r#"{"linux":{"resources":[]}}"#;
        assert_eq!(pointer_at(text.as_bytes(), list_for_object(text).unwrap()), "/linux/resources");
    }

    #[test]
    fn words_that_the_crate_has_wrong() {
        let text = br#"{"process":{"scheduler":{"policy":"SCHED_BATCH","flags":["SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_DL_OVERRUN","SCHED_FLAG_RECLAIM","SCHED_FLAG_KEEP_POLICY","SCHED_FLAG_KEEP_PARAMS",
            "SCHED_FLAG_UTIL_CLAMP_MIN","SCHED_FLAG_UTIL_CLAMP_MAX"]},
            "execCPUAffinity":{"initial":"","final":" 1,, 2-3 "},"cwd":"/","user":{"uid":0,"gid":0}}}"#;
        let (new, dropped) = adapted(text).unwrap();
        assert!(dropped.is_empty());
        let value: serde_json::Value = serde_json::from_slice(&new).unwrap();
        let process: oci_spec::runtime::Process = serde_json::from_value(value["process"].clone()).unwrap();
        assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 7);
        let affinity = process.exec_cpu_affinity().as_ref().unwrap();
        assert_eq!(affinity.initial(), &None);
        assert_eq!(affinity.cpu_affinity_final().as_deref(), Some("1,2-3"));
        for bad in [r#"{"execCPUAffinity":{"final":","}}"#, r#"{"scheduler":{"flags":["x",1]}}"#, "[]", "1"] {
            assert!(adapted(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_capabilities_from_the_future_are_dropped() {
        let text =
            br#"{"process":{"capabilities":{"bounding":["CAP_KILL","CAP_FUTURE"],"ambient":["rubbish"]}}}"#;
        let (new, dropped) = adapted(text).unwrap();
        assert_eq!(dropped, ["CAP_FUTURE"]);
        let new = String::from_utf8(new).unwrap();
        assert!(new.contains("CAP_KILL") && new.contains("rubbish") && !new.contains("FUTURE"));
        assert!(adapted(br#"{"process":{"capabilities":{"bounding":["CAP_KILL"]}}}"#).is_none());
    }

    #[test]
    fn what_go_reads_as_zero_is_read() {
        let text = br#"{"args":["x"],"cwd":"/","ioPriority":{"class":"IOPRIO_CLASS_IDLE"},
            "scheduler":{"policy":"SCHED_DEADLINE","flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_DL_OVERRUN"]}}"#;
        assert!(serde_json::from_slice::<oci_spec::runtime::Process>(text).is_err());
        let process: oci_spec::runtime::Process = serde_json::from_slice(&adapted(text).unwrap().0).unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
        assert_eq!(process.io_priority().as_ref().unwrap().priority(), 0);
        assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 2);
        let text = br#"{"process":{"args":["x"],"cwd":"/","user":{"uid":5}}}"#;
        let spec: serde_json::Value = serde_json::from_slice(&adapted(text).unwrap().0).unwrap();
        assert_eq!(spec["process"]["user"], serde_json::json!({"uid": 5, "gid": 0}));
        assert!(adapted(br#"{"process":{"cwd":"/","user":"root"}}"#).is_none());
    }
}
