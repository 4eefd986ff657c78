//! The state directory: state.json, the seccomp program, and ids.

use crate::cgroup::resources::Limits;
use crate::plan::seccomp::Filter;
use crate::state;

pub fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    match first % 8 {
        0 => {
            if let Some(filter) = Filter::from_bytes(rest) {
                assert_eq!(filter.to_bytes(), rest);
            }
        }
        1 => {
            let id = String::from_utf8_lossy(rest);
            if state::check_id(&id).is_ok() {
                let path = std::path::Path::new("/run/naru").join(&*id);
                assert_eq!(path.parent(), Some(std::path::Path::new("/run/naru")), "{id:?}");
            }
        }
        _ => {
            // The first byte may be that of the text.
            let text = if *first == b'{' { data } else { rest };
            let Ok(state) = state::parse(text) else { return };
            let again = serde_json::to_value(&state).expect("JSON");
            let same: state::State = serde_json::from_value(again.clone()).expect("what was written is read");
            assert_eq!(serde_json::to_value(&same).expect("JSON"), again);
            state.for_hooks();
            let record = &state.cgroup;
            for controller in ["", "memory", "devices", "cpu"] {
                record.hierarchy(controller);
            }
            // None of this may start with what a hostile file says and then fail the command.
            let _ = (record.unified(), record.main(), state.init());
            let limits: Limits = record.limits;
            for text in [r#"{"memory":{"limit":5}}"#, r#"{"memory":{"swap":7},"cpu":{"period":3}}"#] {
                super::resources::convert(&serde_json::from_str(text).expect("our own"), &limits);
            }
        }
    }
}
