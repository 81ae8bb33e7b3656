//! The signature formats. Each signer makes the bytes of one format and recognises its own signatures.

mod cosign;
mod dsse;
mod notation;

pub use cosign::{
    CosignSigner, KeylessSigner, MAX_PREDICATE_BYTES, MAX_STATEMENT_BYTES, Predicate,
    PredicateError, SignedStatement, UnsignedStatement,
};
pub use notation::NotationSigner;
