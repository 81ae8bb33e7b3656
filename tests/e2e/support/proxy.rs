//! A proxy as companies have them: CONNECT for https, whole URLs for http, a password if wanted. Every name leads to one registry,
//! so what reached that registry by a name that does not exist has come this way.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running proxy; dropping it ends it.
pub(crate) struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to `registry` for whoever gives this name and password.
    pub(crate) async fn to(registry: &str, user: &str, password: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (registry, seen) = (registry.to_owned(), Arc::clone(&heads));
        let login = format!(
            "proxy-authorization: basic {}",
            STANDARD.encode(format!("{user}:{password}"))
        );
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (registry, login, seen) = (registry.clone(), login.clone(), Arc::clone(&seen));
                // A connection that breaks is the client's to notice.
                tokio::spawn(async move { drop(serve(client, &registry, &login, &seen).await) });
            }
        });
        Self {
            address,
            heads,
            accepting,
        }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first line of the first request of every connection.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
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
    seen.lock().unwrap().push(first.clone());
    // The scheme is free in case, the credential is not: both sides are compared as they are after the scheme.
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
