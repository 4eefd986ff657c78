//! naru, a low-level OCI container runtime.
#![allow(dead_code)]
mod log;
mod sys;
mod time;

fn main() {}
