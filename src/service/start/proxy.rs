//! The proxy for the API server: that of the kubeconfig, or that of the environment.
//!
//! kube compares `NO_PROXY` with the address of the proxy instead of that of the cluster, and ignores the environment in a cluster. So the
//! choice is made here, with hyper-util's matcher and Go's additions: ports in `NO_PROXY`, and no proxy for loopback addresses.

use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::Kubeconfig;

/// Returns the proxy that the current context of the kubeconfig names. It applies regardless of `NO_PROXY`.
pub(super) fn of_kubeconfig() -> Option<String> {
    let kubeconfig = Kubeconfig::read().ok()?;
    let context = kubeconfig.current_context?;
    let context = kubeconfig
        .contexts
        .into_iter()
        .find(|named| named.name == context)?
        .context?;
    kubeconfig
        .clusters
        .into_iter()
        .find(|named| named.name == context.cluster)?
        .cluster?
        .proxy_url
        .filter(|url| !url.is_empty())
}

/// Returns the proxy of the environment for a URL, from `HTTPS_PROXY` or `HTTP_PROXY`, then `ALL_PROXY`. Each may be in lower case.
pub(super) fn of_environment(
    target: &Uri,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let either = |name: &str| {
        [name.to_owned(), name.to_lowercase()]
            .iter()
            .find_map(|name| variable(name).filter(|value| !value.trim().is_empty()))
    };
    let by_scheme = if target.scheme_str() == Some("http") {
        "HTTP_PROXY"
    } else {
        "HTTPS_PROXY"
    };
    let proxy = either(by_scheme).or_else(|| either("ALL_PROXY"))?;
    if is_loopback(target.host()?) {
        return None;
    }
    let port = target
        .port_u16()
        .unwrap_or(if by_scheme == "HTTP_PROXY" { 80 } else { 443 });
    let excluded = exclusions(&either("NO_PROXY").unwrap_or_default(), port);
    // The matcher decides about the target only. It reads fewer schemes of proxies than kube.
    Matcher::builder()
        .all("http://proxy")
        .no(excluded)
        .build()
        .intercept(target)
        .map(|_| proxy)
}

/// Parses the URL of a proxy. Without a scheme it is a proxy for HTTP.
pub(super) fn parse(proxy: &str) -> Result<Uri, String> {
    let proxy = proxy.trim();
    let url = match proxy.split_once("://") {
        None => format!("http://{proxy}"),
        // The proxy resolves names in both cases.
        Some(("socks5h", rest)) => format!("socks5://{rest}"),
        Some(_) => proxy.to_owned(),
    };
    // The URL may contain a password, so the message does not repeat it.
    let refused =
        |_| "the URL of the proxy is malformed: write http://proxy.example.com:3128".to_owned();
    url.parse().map_err(refused)
}

/// Returns the items of `NO_PROXY` that apply to a port, without the port. The matcher does not know ports.
fn exclusions(no_proxy: &str, port: u16) -> String {
    let applies = |item: &str| -> Option<String> {
        let item = item.trim();
        let item = item
            .strip_prefix('*')
            .filter(|rest| rest.starts_with('.'))
            .unwrap_or(item);
        match item.rsplit_once(':') {
            Some((host, digits)) if !host.contains(':') || host.ends_with(']') => {
                (digits.parse() == Ok(port)).then(|| host.trim_matches(['[', ']']).to_owned())
            }
            _ => Some(item.to_owned()),
        }
    };
    let items: Vec<String> = no_proxy.split(',').filter_map(applies).collect();
    items.join(",")
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
mod tests {
    use super::*;

    fn proxy(target: &str, variables: &[(&str, &str)]) -> Option<String> {
        of_environment(&target.parse().unwrap(), |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const API: &str = "https://api.example.com:6443/";

    #[test]
    fn the_variable_of_the_scheme_comes_before_all_proxy() {
        let all = [
            ("HTTPS_PROXY", "http://a:1"),
            ("HTTP_PROXY", "http://b:1"),
            ("ALL_PROXY", "socks5://c:1"),
        ];
        assert_eq!(proxy(API, &all).as_deref(), Some("http://a:1"));
        assert_eq!(
            proxy("http://x.example.com", &all).as_deref(),
            Some("http://b:1")
        );
        assert_eq!(proxy(API, &all[1..]).as_deref(), Some("socks5://c:1"));
        assert_eq!(
            proxy(API, &[("https_proxy", "d:1")]).as_deref(),
            Some("d:1")
        );
        assert_eq!(
            proxy(API, &[("HTTPS_PROXY", ""), ("https_proxy", "d:1")]).as_deref(),
            Some("d:1")
        );
        assert_eq!(proxy(API, &[("HTTP_PROXY", "http://b:1")]), None);
        assert_eq!(proxy(API, &[]), None);
    }

    #[test]
    fn no_proxy_excludes_hosts_domains_networks_and_ports() {
        for (target, no_proxy, uses_proxy) in [
            (API, "api.example.com", false),
            (API, "example.com", false),
            (API, "other.com, .example.com", false),
            (API, "*.example.com", false),
            (API, "api.example.com:6443", false),
            (API, "api.example.com:443", true),
            (API, "ample.com", true),
            (API, "*", false),
            (API, ",,", true),
            ("https://10.96.0.1:443", "10.0.0.0/8,cluster.local", false),
            ("https://10.96.0.1:443", "10.96.0.1", false),
            ("https://10.96.0.1:443", "10.97.0.0/16", true),
            ("https://[fd00::1]:443", "fd00::/8", false),
            ("https://[fd00::1]:443", "[fd00::1]:443", false),
            ("https://kubernetes.default.svc", ".svc", false),
            ("https://127.0.0.1:6443", "", false),
            ("https://[::1]:6443", "", false),
            ("https://localhost:6443", "", false),
        ] {
            let variables = [("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", no_proxy)];
            assert_eq!(
                proxy(target, &variables).is_some(),
                uses_proxy,
                "{target} {no_proxy}"
            );
        }
    }

    #[test]
    fn the_url_of_a_proxy_needs_no_scheme() {
        for (given, url) in [
            ("proxy:3128", "http://proxy:3128/"),
            (" https://u:p@proxy:3128 ", "https://u:p@proxy:3128/"),
            ("socks5h://proxy:1080", "socks5://proxy:1080/"),
        ] {
            assert_eq!(parse(given).unwrap().to_string(), url);
        }
        let error = parse("http://u:hunter2@ /").unwrap_err();
        assert!(
            error.contains("malformed") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
