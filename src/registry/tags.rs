//! Tags.
use super::error::RegistryError;
use super::session::Session;
use crate::oci::Tag;

impl Session {
    /// All tags of the repository.
    ///
    /// # Errors
    /// `LimitExceeded` where there are more than `cap`: a part of the tags is never taken for all of them.
    pub async fn list_tags(&self, cap: usize) -> Result<Vec<Tag>, RegistryError> {
        let _ = cap;
        unimplemented!()
    }
}
