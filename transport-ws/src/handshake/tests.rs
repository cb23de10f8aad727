use http::header::ORIGIN;
use tidings_core::ForeignOrigin;

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn request(headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder()
        .uri("/ws")
        .header("host", "app.example")
        .header("upgrade", "WebSocket")
        .header("connection", "keep-alive, Upgrade")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", KEY)
        .body(())
        .expect("a request");
    for (name, value) in headers {
        let name = HeaderName::try_from(*name).expect("a name");
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    request
}

fn status(mut request: Request<()>) -> u16 {
    match accept(&mut request, &WsConfig::default()) {
        Ok((response, _)) => response.status().as_u16(),
        Err(response) => response.status().as_u16(),
    }
}

#[test]
fn the_key_of_the_rfc_gets_its_answer() {
    let (response, _) = accept(&mut request(&[]), &WsConfig::default()).expect("accepted");
    let headers = response.headers();
    assert_eq!(response.status(), 101);
    assert_eq!(headers[UPGRADE], "websocket");
    assert_eq!(headers[CONNECTION], "upgrade");
    assert_eq!(headers[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(!headers.contains_key(SEC_WEBSOCKET_PROTOCOL));
}

#[test]
fn only_a_get_of_http_1_1_that_asks_for_it_is_upgraded() {
    let mut post = request(&[]);
    *post.method_mut() = Method::POST;
    assert_eq!(status(post), 405);
    for version in [Version::HTTP_10, Version::HTTP_2] {
        let mut other = request(&[]);
        *other.version_mut() = version;
        assert_eq!(status(other), 505);
    }
    for header in ["upgrade", "connection"] {
        assert_eq!(status(request(&[(header, "other")])), 426);
        let mut without = request(&[]);
        without.headers_mut().remove(header);
        assert_eq!(status(without), 426);
    }
    assert_eq!(status(request(&[("connection", "upgrades")])), 426);
}

#[test]
fn another_version_is_told_which_one_to_use() {
    for version in ["8", "12", "14", "13, 8"] {
        let response =
            accept(&mut request(&[("sec-websocket-version", version)]), &WsConfig::default())
                .expect_err("refused");
        assert_eq!(response.status(), 426);
        assert_eq!(response.headers()[SEC_WEBSOCKET_VERSION], "13");
    }
}

#[test]
fn the_key_is_the_base64_of_16_bytes() {
    for key in ["AAAAAAAAAAAAAAAAAAAAAA==", "+/+/+/+/+/+/+/+/+/+/+w==", KEY] {
        assert_eq!(status(request(&[("sec-websocket-key", key)])), 101, "{key}");
    }
    for key in [
        "",
        "==",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=A",
        "dGhlIHNhbXBsZSBub25jZR==",
        "dGhlIHNhbXBsZSBub25j_Q==",
        "dGhlIHNhbXBsZSBub25jAQ====",
        "AAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAA=",
        "AAAAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAAAAA==",
    ] {
        assert_eq!(status(request(&[("sec-websocket-key", key)])), 400, "{key}");
    }
    let mut twice = request(&[]);
    twice.headers_mut().append("sec-websocket-key", KEY.parse().expect("a value"));
    assert_eq!(status(twice), 400);
}

#[test]
fn an_origin_passes_with_the_same_host_or_by_the_list() {
    for origin in [
        "https://app.example",
        "http://app.example",
        "https://APP.example:443",
        "http://app.example:80",
    ] {
        assert_eq!(status(request(&[("origin", origin)])), 101, "{origin}");
    }
    for origin in [
        "https://evil.example",
        "https://app.example.evil.example",
        "https://sub.app.example",
        "https://app.example:8443",
        "http://app.example:443",
        "ftp://app.example",
        "https://",
        "app.example",
        "null",
        "",
    ] {
        assert_eq!(status(request(&[("origin", origin)])), 403, "{origin}");
    }
    assert_eq!(status(request(&[("origin", "http://a:8080"), ("host", "a:8080")])), 101);
    assert_eq!(status(request(&[("origin", "https://a"), ("host", "a:443")])), 101);
    assert_eq!(status(request(&[("origin", "https://"), ("host", "")])), 403);

    let mut config = WsConfig::default();
    config.allowed_origins.push("https://other.example".parse().expect("an origin"));
    let passes = |origin| accept(&mut request(&[("origin", origin)]), &config).is_ok();
    assert!(passes("https://other.example"));
    assert!(passes("https://app.example"));
    assert!(passes("https://other.example:443"));
    assert!(!passes("http://other.example"));
    assert!(!passes("https://other.example:8443"));

    let mut twice = request(&[("origin", "https://app.example")]);
    twice.headers_mut().append(ORIGIN, HeaderValue::from_static("https://evil.example"));
    assert_eq!(status(twice), 403);
}

#[test]
fn a_refused_origin_is_told_to_the_log_and_not_to_the_client() {
    let foreign = &mut request(&[("origin", "https://evil.example")]);
    let refusal = accept(foreign, &WsConfig::default()).expect_err("foreign");
    assert_eq!(
        (refusal.status().as_u16(), &**refusal.body()),
        (403, "this origin may not connect")
    );
    let told = refusal.extensions().get::<ForeignOrigin>().expect("a reason").to_string();
    assert!(told.contains("evil.example") && told.contains("app.example"), "{told}");
    assert_eq!(status(request(&[("sec-fetch-site", "cross-site")])), 403);
    assert_eq!(status(request(&[("sec-fetch-site", "same-origin")])), 101);
}

#[test]
fn the_subprotocol_is_named_when_it_is_offered() {
    let chosen = |offers: &[&str]| {
        let mut request = request(&[]);
        for offer in offers {
            let offer = offer.parse().expect("a value");
            request.headers_mut().append(SEC_WEBSOCKET_PROTOCOL, offer);
        }
        let (response, _) = accept(&mut request, &WsConfig::default()).expect("accepted");
        response.headers().get(SEC_WEBSOCKET_PROTOCOL).cloned()
    };
    assert_eq!(chosen(&[]), None);
    assert_eq!(chosen(&["tidings.v2.json, chat"]), None);
    assert_eq!(chosen(&["tidings.v1.msgpack"]), None);
    assert_eq!(chosen(&["tidings.v1.msgpack, tidings.v1.json"]).expect("one"), SUBPROTOCOL);
    // A token is never chosen, whatever it says.
    assert_eq!(chosen(&["tidings.token.a.b.c"]), None);
    assert_eq!(chosen(&["tidings.token.tidings.v1.json"]), None);
    let beside = "tidings.token.a.b.c, tidings.v1.json";
    assert_eq!(chosen(&[beside]).expect("one"), SUBPROTOCOL);
    assert_eq!(chosen(&["chat,tidings.v1.json"]).expect("one"), SUBPROTOCOL);
    assert_eq!(chosen(&["chat", "tidings.v1.json"]).expect("one"), SUBPROTOCOL);
}
