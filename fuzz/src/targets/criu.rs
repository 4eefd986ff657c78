//! CRIU's answers, and the end of its log.

use crate::criu::{message, protobuf, session};

pub fn run(data: &[u8]) {
    let mut reader = protobuf::Reader(data);
    while let Some(Ok((field, value))) = reader.next() {
        // What is read can be written, and is read as the same.
        let mut writer = protobuf::Writer::default();
        match value {
            protobuf::Value::Number(number) => writer.number(field, number as i64),
            protobuf::Value::Bytes(bytes) => writer.text(field, bytes),
        }
        let bytes = writer.into_bytes();
        assert_eq!(protobuf::Reader(&bytes).next(), Some(Ok((field, value))));
    }
    if let Ok(response) = message::parse(data) {
        assert!((0..=10_010_000).contains(&response.version), "{}", response.version);
    }
    if let Some(lines) = session::tail(&String::from_utf8_lossy(data)) {
        assert!(lines.len() <= 3 * data.len() + 8);
    }
}
