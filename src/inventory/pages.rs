//! Lists of the API server, page by page.

use kube::Client;
use kube::api::ListParams;
use kube::core::{ListMeta, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::service::{ApiServerError, with_timeout};

/// A page of a list.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Page<T> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<T>>,
}

/// Passes every object of the collection at `path` to `take`. Only one page is in memory.
///
/// # Errors
/// A page cannot be read. The objects of the pages before it were passed.
pub(super) async fn for_each<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    page_size: u32,
    mut take: impl FnMut(T),
) -> Result<(), ApiServerError> {
    let mut params = ListParams::default().limit(page_size);
    loop {
        let request = Request::new(path)
            .list(&params)
            .map_err(|error| ApiServerError::from(kube::Error::BuildRequest(error)))?;
        let page: Page<T> = with_timeout(client.request(request)).await?;
        page.items.into_iter().flatten().for_each(&mut take);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}
