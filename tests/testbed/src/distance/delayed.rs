//! A byte stream that is half a round trip away in each direction, below TLS.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

/// Bytes that one read takes, and that the near end buffers.
const CHUNK: usize = 64 << 10;

/// Returns the far end of `stream`: bytes arrive there half a round trip after they were sent, in either direction.
///
/// The connection itself costs the client one round trip, as the TCP handshake does: its first bytes count as sent
/// then. The delay ends with either end of the stream.
pub(super) fn delayed(stream: TcpStream, round_trip: Duration) -> DuplexStream {
    let established = Instant::now() + round_trip;
    let half = round_trip / 2;
    let (near, far) = tokio::io::duplex(CHUNK);
    let (client_reader, client_writer) = stream.into_split();
    let (server_reader, server_writer) = tokio::io::split(near);
    tokio::spawn(async move {
        tokio::join!(
            relay(client_reader, server_writer, established, half),
            relay(server_reader, client_writer, established, half),
        )
    });
    far
}

/// Passes bytes on, each `delay` after it was read, and none that counts as sent before `earliest`.
async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    earliest: Instant,
    delay: Duration,
) {
    let (sender, mut chunks) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now().max(earliest) + delay;
            let Some(chunk) = buffer.get(..count) else {
                break;
            };
            if sender.send((due, chunk.to_vec())).is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = chunks.recv().await {
            sleep_until(due.into()).await;
            if to.write_all(&chunk).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
