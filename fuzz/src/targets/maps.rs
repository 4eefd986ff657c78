//! Id maps: the check against a plain one, translation, and the text of `/proc/PID/uid_map`.

use crate::input::Input;
use crate::plan::ids::{self, Maps, Range};
use serde_json::json;

pub fn run(data: &[u8]) {
    if let Some((0, text)) = data.split_first().map(|(first, rest)| (first % 4, rest)) {
        let text = String::from_utf8_lossy(text);
        if let Some(list) = ids::parse(&text) {
            assert_eq!(ids::parse(&ids::text(&list)), Some(list.clone()));
            for id in [0, 1, 1000, u32::MAX] {
                ids::outside(&list, id);
            }
            let maps = Maps { uids: list, gids: Vec::new() };
            assert!(maps.same_as(&maps));
        }
        return;
    }
    let mut input = Input(data);
    input.byte();
    let mut ranges = Vec::new();
    while !input.is_empty() && ranges.len() < 350 {
        // Near each other, so that they meet.
        let number = |input: &mut Input| match input.byte() {
            byte @ 0..200 => u32::from(byte % 50),
            _ => input.number() as u32,
        };
        ranges.push(Range {
            inside: number(&mut input),
            outside: number(&mut input),
            count: number(&mut input),
        });
    }
    let list: Vec<_> = ranges
        .iter()
        .map(|range| json!({"containerID": range.inside, "hostID": range.outside, "size": range.count}))
        .collect();
    let list: Vec<oci_spec::runtime::LinuxIdMapping> = serde_json::from_value(list.into()).expect("mappings");
    let compiled = Maps::compile(Some(&list), None, "/linux");
    assert_eq!(compiled.is_ok(), are_valid(&ranges), "{ranges:?}");
    let maps = match compiled {
        Ok(maps) => maps,
        Err(error) => return super::names_field(&error),
    };
    assert_eq!(maps.uids, ranges);
    assert_eq!(ids::parse(&ids::text(&maps.uids)), Some(ranges.clone()));
    let mut turned = maps.clone();
    turned.uids.reverse();
    assert!(maps.same_as(&turned));
    let near = ranges
        .iter()
        .flat_map(|range| [range.inside.wrapping_sub(1), range.inside, range.inside + (range.count - 1)]);
    for id in near.chain([0, u32::MAX]) {
        let expected = ranges.iter().find_map(|range| {
            let (first, id) = (u64::from(range.inside), u64::from(id));
            (first..first + u64::from(range.count))
                .contains(&id)
                .then(|| u64::from(range.outside) + (id - first))
        });
        assert_eq!(ids::outside(&maps.uids, id).map(u64::from), expected, "{id} in {ranges:?}");
    }
}

/// user_namespaces(7).
fn are_valid(ranges: &[Range]) -> bool {
    let ends = |first: u32, count: u32| u64::from(first) + u64::from(count);
    let apart = |a: u32, b: u32, x: &Range, y: &Range| {
        ends(a, x.count) <= u64::from(b) || ends(b, y.count) <= u64::from(a)
    };
    ranges.len() <= 340
        && ranges.iter().enumerate().all(|(at, x)| {
            x.count > 0
                && ends(x.inside, x.count) <= u64::from(u32::MAX)
                && ends(x.outside, x.count) <= u64::from(u32::MAX)
                && ranges[..at]
                    .iter()
                    .all(|y| apart(x.inside, y.inside, x, y) && apart(x.outside, y.outside, x, y))
        })
}
