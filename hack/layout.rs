//! Build script: hands the linker `layout.ld`, which puts the functions that a container start executes next to each
//! other. It changes no code, only where it lies; functions that the script does not know stay where they were.
//! And it has code and constants share one segment: each further one is a mapping that every execve, fork, seal and exit of
//! a start pays for (two of them made `run` 6 to 10 percent slower).

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/layout.ld");
    println!("cargo:rerun-if-changed={script}");
    println!("cargo:rustc-link-arg=-Wl,-T,{script}");
    println!("cargo:rustc-link-arg=-Wl,-z,noseparate-code");
}
