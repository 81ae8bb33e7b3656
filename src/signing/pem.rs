//! PEM files (RFC 7468): labelled blocks of base64, with any text between them.
//!
//! Owns taking blocks out of a file without leaving copies of them in memory. It knows no label: PEM readers of TLS libraries
//! do, and pass over the blocks that cosign writes. It refuses a block that is cut off, mislabelled at its end or not base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// A block: its label and what it holds, wiped when dropped. No `Debug`, since it may be a private key.
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    pub(super) contents: Zeroizing<Vec<u8>>,
}

/// Why a file's blocks cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PemError {
    /// A block is cut off, ends with another label or holds what is not base64.
    Damaged,
    /// A block has headers (RFC 1421), as OpenSSL once wrote them for encrypted keys.
    Headers,
}

/// The blocks of a file in their order; none where the file holds none.
pub(super) fn blocks(file: &[u8]) -> Result<Vec<Block<'_>>, PemError> {
    let mut blocks = Vec::new();
    let mut lines = file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    while let Some(line) = lines.next() {
        let Some(label) = boundary(line, b"-----BEGIN ") else {
            continue;
        };
        let mut encoded = Zeroizing::new(Vec::with_capacity(file.len()));
        loop {
            let line = lines.next().ok_or(PemError::Damaged)?;
            match boundary(line, b"-----END ") {
                Some(end) if end == label => break,
                Some(_) => return Err(PemError::Damaged),
                None if line.contains(&b':') => return Err(PemError::Headers),
                None => encoded.extend_from_slice(line),
            }
        }
        let mut contents = Zeroizing::new(vec![0; base64::decoded_len_estimate(encoded.len())]);
        let length = STANDARD
            .decode_slice(&*encoded, &mut contents)
            .map_err(|_| PemError::Damaged)?;
        contents.truncate(length);
        blocks.push(Block { label, contents });
    }
    Ok(blocks)
}

fn boundary<'a>(line: &'a [u8], start: &[u8]) -> Option<&'a str> {
    std::str::from_utf8(line.strip_prefix(start)?.strip_suffix(b"-----")?).ok()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_other_text_and_with_either_line_end() {
        let file = b"subject=CN = a\n-----BEGIN A B-----\r\nAAEC\r\nAw==\r\n-----END A B-----\r\nx\n-----BEGIN C-----\n-----END C-----";
        let found = blocks(file).unwrap();
        assert_eq!(
            (found[0].label, found[0].contents.as_slice()),
            ("A B", &[0, 1, 2, 3][..])
        );
        assert_eq!(
            (found[1].label, found[1].contents.as_slice()),
            ("C", &[][..])
        );
        assert!(blocks(b"no block").unwrap().is_empty());
    }

    #[test]
    fn damaged_blocks_are_refused() {
        for (file, why) in [
            (&b"-----BEGIN A-----\nAAEC\n"[..], PemError::Damaged),
            (
                b"-----BEGIN A-----\nAAEC\n-----END B-----\n",
                PemError::Damaged,
            ),
            (
                b"-----BEGIN A-----\n?\n-----END A-----\n",
                PemError::Damaged,
            ),
            (
                b"-----BEGIN A-----\nAAE\n-----END A-----\n",
                PemError::Damaged,
            ),
            (
                b"-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nAAEC\n-----END A-----\n",
                PemError::Headers,
            ),
        ] {
            assert_eq!(
                blocks(file).err(),
                Some(why),
                "{}",
                String::from_utf8_lossy(file)
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_blocks_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), middle in "\\PC{0,60}") {
            let _ = blocks(&bytes);
            let _ = blocks(format!("-----BEGIN A-----\n{middle}\n-----END A-----\n").as_bytes());
        }
    }
}
