//! Where a request comes from, when proxies are in between.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

/// The address of the client: that of the connection, or what a proxy among `proxies` says in `X-Real-IP`. `None` when such
/// a proxy does not say it. What others say is not believed: clients of a proxy that is not named share its address.
pub(crate) fn client(
    headers: &HeaderMap,
    peer: SocketAddr,
    proxies: &[IpAddr],
) -> Option<SocketAddr> {
    if !is_forwarded(headers) || !proxies.contains(&peer.ip().to_canonical()) {
        return Some(peer);
    }
    let real = headers.get("x-real-ip").and_then(|ip| ip.to_str().ok()?.parse().ok());
    real.map(|ip: IpAddr| SocketAddr::new(ip, 0))
}

/// Whether a proxy says that it forwards the request.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    ["x-forwarded-for", "forwarded", "x-real-ip", "via"]
        .iter()
        .any(|name| headers.contains_key(*name))
}

/// The host of a request without its port.
pub(crate) fn host_name(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(http::header::HOST)?.to_str().ok()?;
    match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(address, _)| address),
        None => Some(host.rsplit_once(':').map_or(host, |(name, _)| name)),
    }
}

/// Whether a name can only mean this machine, whatever a name server says.
pub(crate) fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                ((*name).parse().expect("a name"), value.parse().expect("a value"))
            })
            .collect()
    }

    #[test]
    fn only_a_proxy_that_was_named_says_where_a_client_is() {
        let peer = SocketAddr::from(([10, 0, 0, 1], 7));
        let real = headers(&[("x-real-ip", "192.0.2.1")]);
        assert_eq!(client(&headers(&[]), peer, &[peer.ip()]), Some(peer));
        let told = client(&real, peer, &[peer.ip()]).map(|client| client.ip().to_string());
        assert_eq!(told.as_deref(), Some("192.0.2.1"));
        assert_eq!(client(&real, peer, &[]), Some(peer), "no header switches a limit off");
        assert_eq!(client(&headers(&[("forwarded", "for=192.0.2.1")]), peer, &[peer.ip()]), None);
    }

    #[test]
    fn a_host_is_a_name_with_or_without_a_port() {
        for (host, name, is_own) in [
            ("localhost:8080", "localhost", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("[::1]:8080", "::1", true),
            ("LocalHost", "LocalHost", true),
            ("localhost.evil.example", "localhost.evil.example", false),
            ("127.0.0.1.evil.example:80", "127.0.0.1.evil.example", false),
            ("10.0.0.1", "10.0.0.1", false),
        ] {
            let headers = headers(&[("host", host)]);
            assert_eq!(host_name(&headers), Some(name));
            assert_eq!(is_loopback(name), is_own, "{host}");
        }
    }
}
