//! What the init stage says to the runtime, and the report of the process that makes mount points for CRIU.

use crate::criu::mounts::read_line;
use crate::explain;
use crate::plan::process;
use crate::sync::{self, Frame, TEXT_MAX};

pub fn run(data: &[u8]) {
    let mut rest = data;
    while !rest.is_empty() {
        let before = rest.len();
        if read_line(&mut rest).is_none() {
            break;
        }
        assert!(rest.len() < before, "a report comes to an end");
    }
    if let Some(Some(filter)) = sync::decode_filter(data) {
        assert_eq!(filter.to_bytes(), data[8..]);
    }
    // The wire hands on no more than this.
    let Some(frame) = sync::decode(&data[..data.len().min(8 + TEXT_MAX)]) else { return };
    if let Frame::Failed(failure) = frame {
        let absent = process::absent();
        assert!(!format!("{:#}", explain::exec_failure(&failure, &absent)).is_empty());
        assert!(!format!("{:#}", explain::start_failure(&failure)).is_empty());
    }
}
