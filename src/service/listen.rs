//! Addresses of servers, in the syntax of Go.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// The maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenAddress {
    /// `:PORT`: all addresses of the machine, of IPv6 and of IPv4.
    All(u16),
    /// A single address.
    Single(SocketAddr),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text.strip_prefix(':') {
            Some(port) => port.parse().ok().map(Self::All),
            None => text.parse().ok().map(Self::Single),
        };
        parsed.ok_or_else(|| {
            format!("{text:?} is not an address: write :8080, 127.0.0.1:8080 or [::1]:8080")
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(port) => write!(f, ":{port}"),
            Self::Single(address) => address.fmt(f),
        }
    }
}

impl ListenAddress {
    /// Starts to listen.
    ///
    /// # Errors
    /// If the address is in use, or not an address of this machine.
    pub(crate) fn listen(self) -> io::Result<TcpListener> {
        let socket = match self {
            Self::Single(address) => open(address)?,
            Self::All(port) => on_all(port, open)?,
        };
        TcpListener::from_std(socket.into())
    }
}

/// Opens an IPv6 socket that also accepts IPv4, or an IPv4 socket on machines without IPv6. If the port is in use on IPv6, it fails, because
/// an IPv4 socket would serve half of the addresses only.
fn on_all<T>(port: u16, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match open((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::AddrInUse | ErrorKind::PermissionDenied
            ) =>
        {
            open((Ipv4Addr::UNSPECIFIED, port).into())
        }
        opened => opened,
    }
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // The default depends on the machine (net.ipv6.bindv6only). tokio's sockets do not have this option.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::sync::Mutex;

    fn port_of(listener: &TcpListener) -> u16 {
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn addresses_are_read_as_go_writes_them() {
        for text in [":8080", "127.0.0.1:8080", "[::1]:8080", "0.0.0.0:0"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "8080",
            ":",
            ":65536",
            "::1:8080:",
            "localhost:8080",
            "10.0.0.1",
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(
                error.starts_with(&format!("{text:?} is not an address: write")),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_port_alone_is_reached_by_ipv4_and_by_ipv6() {
        let all = ListenAddress::All(0).listen().unwrap();
        let connect =
            |ip: &str, port| TcpStream::connect(SocketAddr::new(ip.parse().unwrap(), port));
        connect("127.0.0.1", port_of(&all)).unwrap();
        let has_ipv6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        assert_eq!(connect("::1", port_of(&all)).is_ok(), has_ipv6, "{all:?}");
        let single = ListenAddress::Single((Ipv4Addr::LOCALHOST, 0).into())
            .listen()
            .unwrap();
        connect("127.0.0.1", port_of(&single)).unwrap();
        connect("::1", port_of(&single)).unwrap_err();
    }

    #[tokio::test]
    async fn a_port_in_use_by_either_protocol_is_refused() {
        let bound = [
            ListenAddress::All(0),
            ListenAddress::Single((Ipv4Addr::UNSPECIFIED, 0).into()),
        ];
        for first in bound.map(|address| address.listen().unwrap()) {
            let taken = ListenAddress::All(port_of(&first)).listen().unwrap_err();
            assert_eq!(taken.kind(), ErrorKind::AddrInUse, "{first:?}: {taken}");
        }
    }

    #[test]
    fn ipv4_is_served_on_machines_without_ipv6() {
        let asked = Mutex::new(Vec::new());
        // The kernel has no IPv6 (EAFNOSUPPORT), or no address of it (EADDRNOTAVAIL).
        for code in [97, 99] {
            let open = |address: SocketAddr| {
                asked.lock().unwrap().push(address);
                if address.is_ipv6() {
                    Err(io::Error::from_raw_os_error(code))
                } else {
                    Ok(address)
                }
            };
            assert_eq!(on_all(8080, open).unwrap().to_string(), "0.0.0.0:8080");
        }
        let refused = |_| Err::<(), _>(io::Error::from(ErrorKind::PermissionDenied));
        assert_eq!(
            on_all(80, refused).unwrap_err().kind(),
            ErrorKind::PermissionDenied
        );
    }
}
