//! Many repositories and many children. `AFFIX_SOAK` asks for the whole form.

mod marks;
mod rest;

/// Returns whether the whole form is to run.
fn is_whole() -> bool {
    std::env::var_os("AFFIX_SOAK").is_some()
}
