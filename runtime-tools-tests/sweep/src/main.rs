//! `sweep RUNTIME`: the fault sweep of an OCI runtime.
//!
//! For each command it counts the system calls of the runtime's processes up to the payload's execve, then
//! reruns the command once for each call and each errno that the call can return (or SIGKILL), and compares the
//! host before and after. It takes any runtime with runc's command line, needs root and x86_64, and touches
//! nothing outside its own namespaces but cgroups named `sweep-*`, which it removes.

mod bundle;
mod compare;
mod faults;
mod kernel;
mod oracle;
mod plan;
mod probe;
mod programs;
mod supervise;
mod trace;
mod verdict;
mod world;

fn main() {
    let args: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let name = args.first().and_then(|a| a.rsplit('/').next()).unwrap_or_default();
    if name == "probe" {
        std::process::exit(probe::main(&args));
    }
    if args.iter().any(|a| a == "--help") {
        println!("{}", plan::USAGE);
        return;
    }
    let result = plan::parse(&args[1..]).and_then(|mut o| {
        let path = std::fs::canonicalize(&o.runtime);
        o.runtime = path.map_err(|e| anyhow::anyhow!("{}: {e}", o.runtime))?.to_string_lossy().into_owned();
        // A relative or inherited place must not matter to the workers.
        std::env::set_current_dir("/")?;
        supervise::main(&o)
    });
    match result {
        Ok(code) => std::process::exit(code),
        Err(e) => {
            eprintln!("sweep: {e:#}");
            std::process::exit(2);
        }
    }
}
