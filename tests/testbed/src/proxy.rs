//! An HTTP proxy with a login: CONNECT for `https`, forwarding for `http`.
//!
//! It connects to one registry for every host name. A request that reaches the registry under a name that does not exist has
//! therefore passed through the proxy.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running proxy. Dropping it stops it.
pub struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy to `registry` (`host:port`) that asks for this user name and password.
    ///
    /// # Errors
    ///
    /// Where no port can be opened.
    pub async fn to(registry: &str, user: &str, password: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (registry, seen) = (registry.to_owned(), Arc::clone(&heads));
        let login = format!(
            "proxy-authorization: basic {}",
            STANDARD.encode(format!("{user}:{password}"))
        );
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (registry, login, seen) = (registry.clone(), login.clone(), Arc::clone(&seen));
                // The client reports a broken connection.
                tokio::spawn(async move { drop(serve(client, &registry, &login, &seen).await) });
            }
        });
        Ok(Self {
            address,
            heads,
            accepting,
        })
    }

    /// Returns `127.0.0.1:port`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the URL of the proxy, without the login.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the first line of the first request of every connection.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.heads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    mut client: TcpStream,
    registry: &str,
    login: &str,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 << 10 {
        head.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let first = text.lines().next().unwrap_or_default().to_owned();
    seen.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(first.clone());
    // The authentication scheme ignores case, the credential does not: only the credential is compared.
    let allowed = text
        .lines()
        .any(|line| line.split(' ').next_back() == login.split(' ').next_back());
    if !allowed {
        let answer =
            b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"proxy\"\r\nContent-Length: 0\r\n\r\n";
        return client.write_all(answer).await;
    }
    let mut server = TcpStream::connect(registry).await?;
    if first.starts_with("CONNECT ") {
        client
            .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .await?;
    } else {
        server.write_all(&head).await?;
    }
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
