//! What systemd or a message bus sends.

use crate::cgroup::systemd::message::{self, FIXED, Message};
use crate::cgroup::systemd::value::Reader;

pub fn run(data: &[u8]) {
    let Some(head) = data.get(..FIXED) else { return };
    let Ok(length) = message::length(head) else { return };
    assert!((FIXED..=16 << 20).contains(&length), "{length}");
    // A bus that closes early gives less: then nothing is parsed. All the same, it must not matter.
    for text in [data, data.get(..length).unwrap_or_default()] {
        let Ok(message) = message::parse(text) else { continue };
        if let Message::Return(_, body) | Message::Signal(_, body) = message {
            assert!(body.len() <= text.len());
            let mut reader = Reader::new(&body);
            let _ = (reader.u32(), reader.string(), reader.string(), reader.string());
            let mut reader = Reader::new(&body);
            let _ = (reader.signature(), reader.string());
        }
    }
}
