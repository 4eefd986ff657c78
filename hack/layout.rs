//! Build script: hands the linker `layout.ld`, which puts the functions that a container start executes next to each
//! other. It changes no code, only where it lies; functions that the script does not know stay where they were.
//! And it has code and constants share one segment: each further one is a mapping that every execve, fork, seal and exit of
//! a start pays for (two of them made `run` 6 to 10 percent slower).

use std::{env, fs};

fn main() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/layout.ld");
    println!("cargo:rerun-if-changed={path}");
    let mut path = path.to_owned();
    if env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        // Tests need the tables for unwinding: to the next one, when one has panicked.
        let script = fs::read_to_string(&path).unwrap();
        let kept: Vec<&str> = script.lines().filter(|line| !line.contains("/DISCARD/")).collect();
        path = env::var("OUT_DIR").unwrap() + "/layout.ld";
        fs::write(&path, kept.join("\n")).unwrap();
    }
    println!("cargo:rustc-link-arg=-Wl,-T,{path}");
    println!("cargo:rustc-link-arg=-Wl,-z,noseparate-code");
}
