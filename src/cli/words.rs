//! Sorts the words of a command line into flags and arguments, by the definitions and Go's rules.
//!
//! One dash or two mean the same, for short and long names alike (go-runc sends `-no-subreaper`); a switch takes
//! `=true` or `=false`; the next word is a value whatever it looks like; flags may repeat. clap's own parser has
//! other rules, and it makes the reading of a cold `create` line 37 us instead of 11. No meaning here; called by the parser.

use super::arg::{Arg, Kind};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// What was given.
#[derive(Clone, Copy, Debug)]
enum Given<'a> {
    Switch(bool),
    Value(&'a OsStr),
}

/// Sorted words.
#[derive(Debug)]
pub struct Words<'a> {
    args: &'a [Arg],
    /// Long names and what was given, in order.
    flags: Vec<(&'a str, Given<'a>)>,
    /// Everything that is neither a flag nor its value.
    pub positional: Vec<&'a OsStr>,
}

impl<'a> Words<'a> {
    /// True if this switch is on.
    pub fn switch(&self, name: &str) -> bool {
        self.switch_if_given(name).unwrap_or(false)
    }

    /// What this switch is set to. None: it is not among the words.
    pub fn switch_if_given(&self, name: &str) -> Option<bool> {
        self.given(name).rev().find_map(|given| match given {
            Given::Switch(on) => Some(on),
            Given::Value(_) => None,
        })
    }

    /// The last value of this flag.
    pub fn value(&self, name: &str) -> Option<&'a OsStr> {
        self.values(name).last()
    }

    /// All values of this flag in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a OsStr> {
        self.given(name).filter_map(|given| match given {
            Given::Value(value) => Some(value),
            Given::Switch(_) => None,
        })
    }

    fn given(&self, name: &str) -> impl DoubleEndedIterator<Item = Given<'a>> {
        // The tests run every command with every flag, so a name that no definition has does not get far.
        debug_assert!(name == "help" || self.args.iter().any(|arg| arg.long() == Some(name)), "{name}");
        self.flags.iter().filter(move |(long, _)| *long == name).map(|(_, given)| *given)
    }
}

/// Sorts `words` by the definitions `args`; `help` exists always. With `stops` flags end at the first positional
/// word.
///
/// # Errors
/// runc's text for a flag that is unknown, lacks its value or has one that is no truth value.
pub fn sort<'a>(words: &[&'a OsStr], args: &'a [Arg], stops: bool) -> Result<Words<'a>, String> {
    let mut sorted = Words { args, flags: Vec::new(), positional: Vec::new() };
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            sorted.positional.extend(words.by_ref());
        } else if bytes.len() < 2 || bytes[0] != b'-' {
            sorted.positional.push(word);
            if stops {
                sorted.positional.extend(words.by_ref());
            }
        } else {
            let bytes = bytes.strip_prefix(b"--").unwrap_or(&bytes[1..]);
            let (name, value) = match bytes.iter().position(|&b| b == b'=') {
                Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]))),
                None => (bytes, None),
            };
            if name.is_empty() || name[0] == b'-' {
                return Err(format!("bad flag syntax: {}", word.to_string_lossy()));
            }
            let shown = || String::from_utf8_lossy(name);
            let (long, is_switch) =
                lookup(name, args).ok_or_else(|| format!("flag provided but not defined: -{}", shown()))?;
            let given = match (is_switch, value) {
                (true, None) => Given::Switch(true),
                (true, Some(value)) => {
                    Given::Switch(value.to_str().and_then(parse_bool).ok_or_else(|| {
                        let value = value.to_string_lossy();
                        format!("invalid boolean value {value:?} for -{}: parse error", shown())
                    })?)
                }
                (false, Some(value)) => Given::Value(value),
                // Podman greps for this text to learn whether the flag exists.
                (false, None) => {
                    Given::Value(words.next().ok_or_else(|| format!("flag needs an argument: -{}", shown()))?)
                }
            };
            sorted.flags.push((long, given));
        }
    }
    Ok(sorted)
}

/// The long name of a flag and whether it is a switch.
fn lookup<'a>(name: &[u8], args: &'a [Arg]) -> Option<(&'a str, bool)> {
    if name == b"help" || name == b"h" {
        return Some(("help", true));
    }
    let short = match name {
        [short] => Some(char::from(*short)),
        _ => None,
    };
    args.iter().find_map(|arg| {
        let long = arg.long()?;
        let named = match short {
            None => long.as_bytes() == name,
            Some(short) => arg.is_named(short),
        };
        named.then_some((long, arg.kind == Kind::Switch))
    })
}

/// What is wrong with the number of positional words, in runc's words.
pub fn check_count(words: &Words) -> Result<(), String> {
    let (mut least, mut most) = (0, 0_usize);
    for place in words.args.iter().filter(|arg| arg.kind == Kind::Positional) {
        least += usize::from(place.required);
        most = most.saturating_add(if place.any_number { usize::MAX } else { 1 });
    }
    match words.positional.len() {
        given if given >= least && given <= most => Ok(()),
        _ if least == most => Err(format!("requires exactly {least} argument(s)")),
        given if given < least => Err(format!("requires a minimum of {least} argument(s)")),
        _ => Err(format!("requires a maximum of {most} argument(s)")),
    }
}

/// An id, if one is among the words, is there and is text; its characters are checked where ids are known.
pub fn check_id(words: &Words) -> Result<(), String> {
    match words.positional.first() {
        Some(id) if id.is_empty() => Err("container id cannot be empty".to_owned()),
        Some(id) if id.to_str().is_none() => Err("invalid container ID format".to_owned()),
        _ => Ok(()),
    }
}

/// A truth value in any of the forms Go's strconv.ParseBool takes.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
