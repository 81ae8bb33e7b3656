//! The evidence of services about a signature: entries of transparency logs and timestamps.

use sigstore_verify::types::TimestampToken;
use sigstore_verify::types::TransparencyLogEntry;
use sigstore_verify::types::bundle::{Rfc3161Timestamp, TimestampVerificationData};

/// The evidence of one signature, as a bundle has it. It is not verified yet.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::signing) struct Evidence {
    pub(in crate::signing) entries: Vec<TransparencyLogEntry>,
    pub(in crate::signing) timestamps: TimestampVerificationData,
}

impl Evidence {
    /// Returns the evidence from entries and from answers of timestamp authorities.
    pub(super) fn new(entries: Vec<TransparencyLogEntry>, timestamps: Vec<Vec<u8>>) -> Self {
        let timestamps = timestamps
            .into_iter()
            .map(|answer| Rfc3161Timestamp::new(TimestampToken::new(answer)));
        Self {
            entries,
            timestamps: TimestampVerificationData::new(timestamps.collect()),
        }
    }
}
