//! One module a target; `run` takes any bytes.

pub mod cli;
pub mod config;
pub mod criu;
pub mod dbus;
pub mod devices;
pub mod maps;
pub mod mounts;
pub mod netlink;
pub mod plan;
pub mod proc;
pub mod resources;
pub mod seccomp;
pub mod state;
pub mod text;
pub mod wire;

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All targets by the names of their corpora.
pub const ALL: [(&str, Target); 15] = [
    ("cli", cli::run),
    ("config", config::run),
    ("criu", criu::run),
    ("dbus", dbus::run),
    ("devices", devices::run),
    ("maps", maps::run),
    ("mounts", mounts::run),
    ("netlink", netlink::run),
    ("plan", plan::run),
    ("proc", proc::run),
    ("resources", resources::run),
    ("seccomp", seccomp::run),
    ("state", state::run),
    ("text", text::run),
    ("wire", wire::run),
];

/// Warnings go nowhere.
fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let null = Some(std::path::Path::new("/dev/null"));
        crate::log::init(null, crate::log::Format::default(), false).expect("/dev/null can be opened");
    });
}

/// Fails unless the error begins with the JSON pointer of a field of the configuration.
fn names_field(error: &anyhow::Error) {
    let text = format!("{error:#}");
    const TOP: [&str; 11] = [
        "/ociVersion",
        "/root",
        "/process",
        "/mounts",
        "/hostname",
        "/domainname",
        "/hooks",
        "/annotations",
        "/linux",
        "/vm",
        "/zos",
    ];
    let named = TOP.iter().any(|top| text.strip_prefix(top).is_some_and(|rest| rest.starts_with(['/', ':'])));
    assert!(named, "no field in: {text}");
}
