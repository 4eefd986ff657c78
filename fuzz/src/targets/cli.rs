//! Command lines, words apart by NUL, and the numbers in them.

use crate::cli::{self, Command, Request};
use crate::cmd::{exec, kill, update};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

pub fn run(data: &[u8]) {
    let words = data.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let argv: Vec<OsString> = std::iter::once("naru".into()).chain(words).collect();
    match cli::parse(&argv) {
        Ok(Request::Run { command, failure, .. }) => {
            assert!([1, 255].contains(&failure));
            match command {
                Command::Update(args) => drop(update::resources_of(&args)),
                Command::Kill(args) => drop(args.signal.map(|word| kill::parse_signal(&word))),
                Command::Exec(args) => drop(args.user.map(|user| exec::parse_user(&user, 0))),
                _ => {}
            }
        }
        Ok(Request::Help(text)) => {
            assert!(!text.is_empty());
            // clap's definitions live for the whole process: many of them are no leak of a program that prints one.
        }
        Ok(Request::Version) => {}
        Err(refusal) => assert!(!refusal.message.is_empty() && [1, 3, 255].contains(&refusal.code)),
    }
    for word in argv.iter().filter_map(|word| word.to_str()) {
        if let Some(size) = update::parse_size(word) {
            assert!(size >= 0, "{word:?}: {size}");
        }
        if let Ok((uid, gid)) = exec::parse_user(word, 0) {
            assert!(uid != u32::MAX && gid != u32::MAX, "{word:?}");
        }
        if let Ok(signal) = kill::parse_signal(word) {
            assert!((0..=64).contains(&signal), "{word:?}: {signal}");
        }
    }
}
