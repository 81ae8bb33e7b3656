//! PEM files (RFC 7468): labelled blocks of base64, with any text between them.
//!
//! Reads every label, also those that only cosign writes. The `pem` crate decodes; this module refuses two inputs that the
//! crate passes over: a block without its end, and one with the headers of an encrypted OpenSSL key.

use zeroize::Zeroizing;

/// A decoded block. The contents are wiped when dropped. It has no `Debug`, because it can hold a private key.
pub(in crate::signing) struct Block {
    pub(in crate::signing) label: String,
    pub(in crate::signing) contents: Zeroizing<Vec<u8>>,
}

/// An error in the blocks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::signing) enum PemError {
    /// A block is cut off, ends with another label or is not base64.
    Damaged,
    /// A block has headers (RFC 1421): the old OpenSSL form of an encrypted key.
    Headers,
}

/// Returns the blocks of a file in order, or none if the file has no block.
pub(in crate::signing) fn blocks(file: &[u8]) -> Result<Vec<Block>, PemError> {
    let (text, begin_lines) = without_blank_lines(file);
    let is_encrypted = text
        .split(|byte| *byte == b'\n')
        .any(|line| line.starts_with(b"Proc-Type:"));
    match pem::parse_many(text.as_slice()) {
        _ if is_encrypted => Err(PemError::Headers),
        Ok(parsed) if parsed.len() >= begin_lines => Ok(parsed
            .into_iter()
            .map(|block| Block {
                label: block.tag().to_owned(),
                contents: Zeroizing::new(block.into_contents()),
            })
            .collect()),
        _ => Err(PemError::Damaged),
    }
}

/// Returns the file with trimmed lines, and the number of lines that begin a block.
///
/// Blank lines are left out, because the crate takes the first one in a block for the end of headers.
fn without_blank_lines(file: &[u8]) -> (Zeroizing<Vec<u8>>, usize) {
    let mut text = Zeroizing::new(Vec::with_capacity(file.len() + 1));
    let mut begin_lines = 0;
    for line in file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        begin_lines += usize::from(line.starts_with(b"-----BEGIN "));
        if !line.is_empty() {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
    }
    (text, begin_lines)
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
        for file in [
            "subject=CN = a\n-----BEGIN A B-----\r\nAAEC\r\nAw==\r\n-----END A B-----\r\nx\n-----BEGIN C-----\n-----END C-----",
            "\u{feff}-----BEGIN A B-----\n\nAAEC\t\n  Aw==  \n\n-----END A B-----  \n\n-----BEGIN C-----\n-----END C-----\n\n",
            "a: b\n\n-----BEGIN A B-----\nA\nAEC\nAw==\n-----END A B-----\n-----BEGIN C-----\n-----END C-----\na: b",
        ] {
            let found = blocks(file.as_bytes()).unwrap();
            assert_eq!(
                (found[0].label.as_str(), found[0].contents.as_slice()),
                ("A B", &[0, 1, 2, 3][..]),
                "{file}"
            );
            assert_eq!(
                (found[1].label.as_str(), found[1].contents.as_slice()),
                ("C", &[][..]),
                "{file}"
            );
        }
        assert!(blocks(b"no block").unwrap().is_empty());
    }

    #[test]
    fn damaged_blocks_are_refused() {
        for (file, why) in [
            (&b"-----BEGIN A-----\nAAEC\n"[..], PemError::Damaged),
            (
                b"-----BEGIN A-----\nAAEC\n-----END A-----\n-----BEGIN B-----\nAAEC\n",
                PemError::Damaged,
            ),
            (
                b"-----BEGIN A-----\nAAEC\n-----BEGIN B-----\nAAEC\n-----END B-----\n",
                PemError::Damaged,
            ),
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
