//! From the words of a command line to the form clap takes: runc's flags follow Go's rules.
//!
//! One dash or two mean the same, for short and long names alike (go-runc sends `-no-subreaper`); a switch takes
//! `=true` or `=false`; the next word is a value whatever it looks like; flags may repeat. Which names exist and
//! which take a value is read from clap's definitions. No meaning here; called by the parser.

use clap::{Arg, ArgAction};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Sorted words.
#[derive(Debug, Default)]
pub struct Scan {
    /// `--name` for a switch that is on, `--name=value` for the others, in order.
    pub flags: Vec<OsString>,
    /// Names of switches that are off in words.
    pub off: Vec<OsString>,
    /// Everything else.
    pub positional: Vec<OsString>,
}

impl Scan {
    /// True if this switch is on.
    pub fn has(&self, switch: &str) -> bool {
        self.flags.iter().any(|flag| flag == switch)
    }
}

/// Sorts `words` by the definitions `args`; `help` exists always. With `stops` flags end at the first positional
/// word.
///
/// # Errors
/// runc's text for a flag that is unknown, lacks its value or has one that is no truth value.
pub fn scan(words: &[OsString], args: &[Arg], stops: bool) -> Result<Scan, String> {
    let mut found = Scan::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            found.positional.extend(words.by_ref().cloned());
        } else if bytes.len() < 2 || bytes[0] != b'-' {
            found.positional.push(word.clone());
            if stops {
                found.positional.extend(words.by_ref().cloned());
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
            let mut flag = OsString::with_capacity(2 + long.len() + 1 + value.map_or(0, OsStr::len));
            flag.push("--");
            flag.push(long);
            if is_switch {
                // The last one wins, so an earlier one goes.
                found.flags.retain(|earlier| *earlier != flag);
                found.off.retain(|earlier| *earlier != *long);
                let on = match value {
                    None => true,
                    Some(value) => value.to_str().and_then(parse_bool).ok_or_else(|| {
                        format!(
                            "invalid boolean value {:?} for -{}: parse error",
                            value.to_string_lossy(),
                            shown()
                        )
                    })?,
                };
                if on {
                    found.flags.push(flag);
                } else {
                    found.off.push(long.into());
                }
            } else {
                let value = match value {
                    Some(value) => value,
                    // Podman greps for this text to learn whether the flag exists.
                    None => words.next().ok_or_else(|| format!("flag needs an argument: -{}", shown()))?,
                };
                flag.push("=");
                flag.push(value);
                found.flags.push(flag);
            }
        }
    }
    Ok(found)
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
        let long = arg.get_long()?;
        let named = match short {
            None => long.as_bytes() == name,
            Some(short) => {
                arg.get_short() == Some(short)
                    || arg.get_all_short_aliases().is_some_and(|all| all.contains(&short))
            }
        };
        named.then(|| (long, matches!(arg.get_action(), ArgAction::SetTrue)))
    })
}

/// A truth value in any of the forms Go's strconv.ParseBool takes.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
