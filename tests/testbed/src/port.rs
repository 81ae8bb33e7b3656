//! Free ports, for programs that cannot choose one themselves and say which.

use std::net::{Ipv4Addr, TcpListener};

/// A port of the loopback address that was free a moment ago. Another process may take it before it is used, so whoever uses it
/// tries again where it is taken.
///
/// # Errors
///
/// Where the system has no port left.
pub fn free() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
