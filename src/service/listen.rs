//! Where a server listens, written as Go's programs have it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenAddress {
    /// `:PORT`: every address of the machine, of IPv6 and of IPv4.
    Every(u16),
    /// This one.
    One(SocketAddr),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = match text.strip_prefix(':') {
            Some(port) => port.parse().ok().map(Self::Every),
            None => text.parse().ok().map(Self::One),
        };
        read.ok_or_else(|| {
            format!("{text:?} is not an address: write :8080, 127.0.0.1:8080 or [::1]:8080")
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(port) => write!(f, ":{port}"),
            Self::One(address) => address.fmt(f),
        }
    }
}

impl ListenAddress {
    /// Listens.
    ///
    /// # Errors
    /// When the address is taken, or not this machine's.
    pub(crate) fn listen(self) -> io::Result<TcpListener> {
        let socket = match self {
            Self::One(address) => open(address)?,
            Self::Every(port) => on_every(port, open)?,
        };
        TcpListener::from_std(socket.into())
    }
}

/// One socket of IPv6 that takes calls by IPv4 too; one of IPv4 where the machine has no IPv6. Where IPv6 is there and the port is
/// taken, that is the answer: half of the machine's addresses would be somebody else's.
fn on_every<T>(port: u16, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
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
        // What is right without this is up to the machine (net.ipv6.bindv6only).
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
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
            let refusal = text.parse::<ListenAddress>().unwrap_err();
            assert!(
                refusal.starts_with(&format!("{text:?} is not an address: write")),
                "{refusal}"
            );
        }
    }

    #[tokio::test]
    async fn a_port_alone_is_reached_by_ipv4_and_by_ipv6_and_one_address_by_itself_only() {
        let every = ListenAddress::Every(0).listen().unwrap();
        let called =
            |ip: &str, port| TcpStream::connect(SocketAddr::new(ip.parse().unwrap(), port));
        called("127.0.0.1", port_of(&every)).unwrap();
        let has_ipv6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        assert_eq!(
            called("::1", port_of(&every)).is_ok(),
            has_ipv6,
            "{every:?}"
        );
        let one = ListenAddress::One((Ipv4Addr::LOCALHOST, 0).into())
            .listen()
            .unwrap();
        called("127.0.0.1", port_of(&one)).unwrap();
        called("::1", port_of(&one)).unwrap_err();
    }

    #[tokio::test]
    async fn a_port_that_somebody_has_by_either_protocol_is_taken() {
        let bound = [
            ListenAddress::Every(0),
            ListenAddress::One((Ipv4Addr::UNSPECIFIED, 0).into()),
        ];
        for first in bound.map(|address| address.listen().unwrap()) {
            let taken = ListenAddress::Every(port_of(&first)).listen().unwrap_err();
            assert_eq!(taken.kind(), ErrorKind::AddrInUse, "{first:?}: {taken}");
        }
    }

    #[test]
    fn where_ipv6_is_off_ipv4_is_served() {
        let asked = Mutex::new(Vec::new());
        // The kernel has no IPv6 (EAFNOSUPPORT), or has it without an address (EADDRNOTAVAIL).
        for code in [97, 99] {
            let open = |address: SocketAddr| {
                asked.lock().unwrap().push(address);
                if address.is_ipv6() {
                    Err(io::Error::from_raw_os_error(code))
                } else {
                    Ok(address)
                }
            };
            assert_eq!(on_every(8080, open).unwrap().to_string(), "0.0.0.0:8080");
        }
        let refused = |_| Err::<(), _>(io::Error::from(ErrorKind::PermissionDenied));
        assert_eq!(
            on_every(80, refused).unwrap_err().kind(),
            ErrorKind::PermissionDenied
        );
    }
}
