//! affix.
fn main() {}
