//! Answers of the kernel about interfaces.

use crate::netlink::{address, link, read_answer};

pub fn run(data: &[u8]) {
    let mut answers = Vec::new();
    let _ = read_answer(data, &mut answers);
    let length: usize = answers.iter().map(Vec::len).sum();
    assert!(length <= data.len());
    for message in answers.iter().map(Vec::as_slice).chain([data]) {
        if let Some(link) = link(message) {
            link.is_up();
            address(message, link.index);
        }
        address(message, 1);
    }
}
