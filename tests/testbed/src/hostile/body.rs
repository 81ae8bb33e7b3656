//! Transmission of bodies: at once, slowly, truncated, or endless.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use hyper::body::{Body, Frame, SizeHint};

use super::answer::{Length, Payload, Source};
use super::bomb;
use super::connection::Connection;
use super::fault::Cut;
use super::record::Entry;

const FILLER_CHUNK: usize = 64 * 1024;
/// Time for sent bytes to leave.
const FLUSH: Duration = Duration::from_millis(20);

/// The body of an answer under way. Its request counts as running until this is dropped.
pub(super) struct WireBody {
    chunks: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    empty: bool,
    _entry: Entry,
}

impl WireBody {
    /// Sends `payload`; nothing where `silent`, as for HEAD.
    pub(super) fn new(
        payload: Payload,
        silent: bool,
        connection: Arc<Connection>,
        entry: Entry,
    ) -> Self {
        let nothing = matches!(&payload.source, Source::Bytes(bytes) if bytes.is_empty());
        let nothing = nothing && payload.cut.is_none() && payload.length == Length::Exact;
        Self {
            chunks: Box::pin(stream(payload, connection)),
            empty: silent || nothing,
            _entry: entry,
        }
    }
}

impl Body for WireBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.empty {
            return Poll::Ready(None);
        }
        self.get_mut()
            .chunks
            .as_mut()
            .poll_next(cx)
            .map(|next| next.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.empty
    }

    fn size_hint(&self) -> SizeHint {
        // Never exact: the head may lie about the length, and hyper trusts an exact hint more than the head.
        if self.empty {
            SizeHint::with_exact(0)
        } else {
            SizeHint::default()
        }
    }
}

struct Sending {
    chunks: Box<dyn Iterator<Item = Bytes> + Send>,
    rest: Bytes,
    sent: u64,
    ended: bool,
}

fn stream(
    payload: Payload,
    connection: Arc<Connection>,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let Payload {
        source,
        pace,
        cut,
        length,
    } = payload;
    let start = Sending {
        chunks: chunks(source),
        rest: Bytes::new(),
        sent: 0,
        ended: false,
    };
    futures::stream::unfold(start, move |mut sending| {
        let connection = Arc::clone(&connection);
        async move {
            if sending.ended {
                return None;
            }
            if let Some((_, how)) = cut.filter(|(after, _)| sending.sent >= *after) {
                sending.ended = true;
                return Some((Err(end(how, &connection).await), sending));
            }
            if sending.rest.is_empty() {
                let next = sending.chunks.next();
                if next.is_none() && length != Length::Exact {
                    // The head may promise more than this, and then the end is a failure to hyper.
                    tokio::time::sleep(FLUSH).await;
                }
                sending.rest = next?;
            }
            let mut take = sending.rest.len();
            if let Some((bytes, pause)) = pace {
                take = take.min(bytes.max(1));
                tokio::time::sleep(pause).await;
            }
            if let Some((after, _)) = cut {
                take = take.min(usize::try_from(after - sending.sent).unwrap_or(usize::MAX));
            }
            let chunk = sending.rest.split_to(take);
            sending.sent += chunk.len() as u64;
            Some((Ok(chunk), sending))
        }
    })
}

async fn end(how: Cut, connection: &Connection) -> io::Error {
    // Earlier bytes should arrive first. hyper drops unflushed bytes when a body fails.
    tokio::time::sleep(FLUSH).await;
    match how {
        Cut::Close => io::Error::from(io::ErrorKind::UnexpectedEof),
        Cut::Stall => std::future::pending().await,
        Cut::Reset => {
            connection.kill();
            std::future::pending().await
        }
    }
}

fn chunks(source: Source) -> Box<dyn Iterator<Item = Bytes> + Send> {
    match source {
        Source::Bytes(bytes) => Box::new(std::iter::once(bytes).filter(|bytes| !bytes.is_empty())),
        Source::Bomb { unpacked } => Box::new(bomb::chunks(unpacked)),
        Source::Filler { prefix, total } => {
            let block = Bytes::from(vec![b'a'; FILLER_CHUNK]);
            let mut left = total.saturating_sub(prefix.len() as u64);
            let filler = std::iter::from_fn(move || {
                let size =
                    usize::try_from(left).map_or(FILLER_CHUNK, |left| left.min(FILLER_CHUNK));
                left -= size as u64;
                (size > 0).then(|| block.slice(..size))
            });
            Box::new(
                std::iter::once(prefix)
                    .filter(|prefix| !prefix.is_empty())
                    .chain(filler),
            )
        }
    }
}
