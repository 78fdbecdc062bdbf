//! Lists as CSV files, written page by page while they are sent.

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream;
use wa_core::store::{PAGE_MAX, PageRequest, StoreError};

/// How lists are read for a file.
pub(super) struct Rows;

impl Rows {
    /// The page after a key.
    pub(super) const fn request<K>(after: Option<K>) -> PageRequest<K> {
        PageRequest { after, limit: PAGE_MAX }
    }
}

/// One page: its rows, and the key after which the next one starts.
pub(super) type PageOf<K> = Result<(Vec<Vec<String>>, Option<K>), StoreError>;

enum Next<K> {
    Header,
    After(Option<K>),
    End,
}

/// A file that is read page by page; it breaks off if a page cannot be read, so that nobody takes it for whole.
pub(super) fn csv_response<K, F, R>(name: &str, header: Vec<String>, read: F) -> Response
where
    K: Send + 'static,
    F: Fn(Option<K>) -> R + Send + 'static,
    R: Future<Output = PageOf<K>> + Send,
{
    let pages = stream::try_unfold((Next::Header, read, header), |(next, read, header)| async move {
        let (rows, next) = match next {
            Next::End => return Ok::<_, std::io::Error>(None),
            Next::Header => (vec![header.clone()], Next::After(None)),
            Next::After(after) => {
                let (rows, next) = read(after).await.map_err(|error| {
                    tracing::error!(?error, "a file could not be written to its end");
                    std::io::Error::other("the list could not be read")
                })?;
                (rows, next.map_or(Next::End, |key| Next::After(Some(key))))
            }
        };
        Ok(Some((
            Bytes::from(crate::csv_file::encode(&rows)),
            (next, read, header),
        )))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (headers, Body::from_stream(pages)).into_response()
}
