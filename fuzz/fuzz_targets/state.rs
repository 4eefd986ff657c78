#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| naru_fuzz::targets::state::run(data));
