#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| affix::fuzzing::www_authenticate(bytes));
