//! The console's page: a few files inside the program, so that it works offline and needs no
//! build. It reads the same addresses as everyone else.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use rust_embed::RustEmbed;

use super::problem::no_such_address;

/// The page may load its own files and talk to its own server, and nothing else.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

#[derive(RustEmbed)]
#[folder = "src/server/console"]
struct Files;

/// `GET /`
pub(super) async fn redirect() -> Redirect {
    Redirect::temporary("/console")
}

/// `GET /console`
pub(super) async fn page(uri: Uri, headers: HeaderMap) -> Response {
    file(Path("index.html".into()), uri, headers).await
}

/// `GET /console/{file}`
pub(super) async fn file(Path(name): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    let Some(file) = Files::get(&name) else { return no_such_address(uri).await.into_response() };
    let digest = file.metadata.sha256_hash();
    let tag = digest[..8].iter().fold(String::from("\""), |tag, byte| format!("{tag}{byte:02x}"));
    let tag = tag + "\"";
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|value| value == tag.as_str());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type(&name))),
        // Checked each time, by a tag: a new walmill never runs with an old page.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    ];
    match known {
        true => (StatusCode::NOT_MODIFIED, headers, [(header::ETAG, tag)]).into_response(),
        false => (headers, [(header::ETAG, tag)], file.data).into_response(),
    }
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}
