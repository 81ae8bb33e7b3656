//! Paginated listings. `Link` is followed within the registry's origin and within limits.

use std::collections::HashSet;

use http::Method;
use url::Url;

use crate::access::address_policy::authority;
use crate::access::tokens::Actions;
use crate::client::session::Session;
use crate::error::{Operation, RegistryError};
use crate::http::request::Request;
use crate::http::transport::Answer;
use crate::protocol::link;

/// The progress of a listing.
pub(crate) struct Pages {
    operation: Operation,
    requested: HashSet<Url>,
    bytes: u64,
}

impl Pages {
    pub(crate) fn new(operation: &Operation) -> Self {
        Self {
            operation: operation.clone(),
            requested: HashSet::new(),
            bytes: 0,
        }
    }

    /// Requests one page.
    ///
    /// # Errors
    /// `LimitExceeded` if there are too many pages or a page repeats, and the errors of every
    /// request.
    pub(crate) async fn get(
        &mut self,
        session: &Session,
        url: Url,
        accept: &'static str,
    ) -> Result<Answer, RegistryError> {
        let limits = &session.options().limits;
        let exceeded = |what: &str| RegistryError::LimitExceeded {
            operation: self.operation.clone(),
            what: what.to_owned(),
            limit: limits.pages as u64,
        };
        if self.requested.len() >= limits.pages {
            return Err(exceeded("the listing has too many pages"));
        }
        if !self.requested.insert(url.clone()) {
            return Err(exceeded(
                "the listing repeats a page: its links form a circle",
            ));
        }
        let mut request = Request::new(&self.operation, Method::GET, url, Actions::Pull)
            .header(http::header::ACCEPT, accept);
        request.cap = limits.manifest_bytes;
        let answer = session.send(&request).await?;
        self.bytes += answer.body.len() as u64;
        if self.bytes > limits.listing_bytes {
            let what = "all pages of the listing together are too large, in bytes".to_owned();
            return Err(RegistryError::LimitExceeded {
                operation: self.operation.clone(),
                what,
                limit: limits.listing_bytes,
            });
        }
        Ok(answer)
    }

    /// Returns the URL of the page after `answer`, if there is one.
    ///
    /// # Errors
    /// `Protocol` if it has another origin. Ignoring it would make the listing look complete.
    pub(crate) fn next(
        &self,
        session: &Session,
        answer: &Answer,
    ) -> Result<Option<Url>, RegistryError> {
        let Some(target) = link::next(answer.header_lines(http::header::LINK)) else {
            return Ok(None);
        };
        let url = answer
            .url
            .join(&target)
            .map_err(|_| session.protocol(&self.operation, "the next page's URL is malformed"))?;
        if !session.inner.client.transport.is_own(&url) {
            let what = format!(
                "the next page is at {}, which is another origin",
                authority(&url)
            );
            return Err(session.protocol(&self.operation, &what));
        }
        Ok(Some(url))
    }
}
