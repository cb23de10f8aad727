//! The demo page and the browser client: files that are part of the program.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};

/// The page at `/`, what it needs, and `/tidings-client.js`, which pages of any origin may import.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let serve = |file: File| get(move |headers: HeaderMap| async move { file.answer(&headers) });
    Router::new()
        .route("/", serve(File::new("text/html", include_str!("../../page/index.html"))))
        .route("/style.css", serve(File::new("text/css", include_str!("../../page/style.css"))))
        .route("/app.js", serve(File::new(JAVASCRIPT, include_str!("../../page/app.js"))))
        .route("/tidings-client.js", serve(File::new(JAVASCRIPT, CLIENT)))
}

/// A text that browsers keep, and ask each time whether it is still the same.
#[derive(Debug, Clone)]
struct File {
    kind: &'static str,
    text: &'static str,
    tag: String,
}

impl File {
    fn new(kind: &'static str, text: &'static str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self { kind, text, tag: format!("\"{:016x}\"", hasher.finish()) }
    }

    fn answer(&self, request: &HeaderMap) -> Response {
        let known = request.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
        let caching = [(header::ETAG, self.tag.as_str()), (header::CACHE_CONTROL, "no-cache")];
        if known.is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == self.tag)) {
            return (StatusCode::NOT_MODIFIED, caching).into_response();
        }
        let kind = format!("{}; charset=utf-8", self.kind);
        let headers = [
            (header::CONTENT_TYPE, kind.as_str()),
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (caching, headers, self.text).into_response()
    }
}

const JAVASCRIPT: &str = "text/javascript";
const CLIENT: &str = include_str!("../../../client-js/tidings-client.js");
