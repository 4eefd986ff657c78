//! naru, a low-level OCI container runtime.
#![allow(dead_code)]
mod sys;

fn main() {}
