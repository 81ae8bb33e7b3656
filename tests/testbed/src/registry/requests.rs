//! What a registry was asked, read from its access log.

use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::Context;

/// One request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `HEAD`, `PUT`, …
    pub method: String,
    /// The path as it was sent: `/v2/team/app/manifests/v1`.
    pub path: String,
    /// What followed the question mark, as it was sent; empty where there was none.
    pub query: String,
    /// The status of the answer.
    pub status: u16,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.query.is_empty() { "" } else { "?" };
        write!(
            f,
            "{} {}{mark}{} {}",
            self.method, self.path, self.query, self.status
        )
    }
}

/// A place in a registry's log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mark(u64);

pub(super) fn mark(log: &Path) -> anyhow::Result<Mark> {
    match std::fs::metadata(log) {
        Ok(metadata) => Ok(Mark(metadata.len())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Mark::default()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", log.display())),
    }
}

pub(super) fn read(log: &Path, since: Mark) -> anyhow::Result<Vec<Request>> {
    let mut file =
        std::fs::File::open(log).with_context(|| format!("{} cannot be opened", log.display()))?;
    file.seek(SeekFrom::Start(since.0))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes)
        .lines()
        .filter_map(parse)
        .collect())
}

/// Reads one line of Apache's common or combined log. Other lines, as distribution's own, are none.
fn parse(line: &str) -> Option<Request> {
    let (client, rest) = line.split_once(" [")?;
    if client.split(' ').count() != 3 {
        return None;
    }
    let (_, rest) = rest.split_once("] \"")?;
    let (request, rest) = rest.split_once("\" ")?;
    let mut words = request.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        status: rest.split(' ').next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_log_formats_are_requests_and_other_lines_are_not() {
        let common =
            r#"127.0.0.1 - - [23/Nov/2026:10:00:00 +0000] "GET /v2/a/manifests/v1 HTTP/1.1" 200 -"#;
        assert_eq!(
            parse(common).map(|r| r.to_string()).as_deref(),
            Some("GET /v2/a/manifests/v1 200")
        );
        let combined = r#"127.0.0.1 - alice [23/Nov/2026:10:00:00 +0000] "POST /v2/a/blobs/uploads/?digest=sha256:0 HTTP/2.0" 202 0 "" "ua""#;
        let request = parse(combined);
        assert_eq!(
            request.map(|r| (r.path, r.query)),
            Some(("/v2/a/blobs/uploads/".into(), "digest=sha256:0".into()))
        );
        assert_eq!(
            parse(r#"time="2026" level=info msg="listening on 127.0.0.1:1" x=[1] "a" 200"#),
            None
        );
        assert_eq!(parse(""), None);
    }
}
