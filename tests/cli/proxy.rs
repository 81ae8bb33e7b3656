//! Proxies of the environment for the API server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use affix_testbed::process::{Launch, Process};
use affix_testbed::tools::Tools;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A host that exists only for the proxy.
const API_SERVER: &str = "api.example.test:6443";

/// A CONNECT proxy that records the first line of each request and has no route to any host.
struct ConnectProxy {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let recorded = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match client.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let first = head.lines().next().unwrap_or_default().to_owned();
                recorded.lock().unwrap().push(first);
                let answer = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
                let _ = client.write_all(answer).await;
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    async fn wait_for_request(&self) -> String {
        for _ in 0..600 {
            if let Some(first) = self.requests().first() {
                return first.clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the proxy received no request");
    }
}

/// A controller with a kubeconfig for [`API_SERVER`].
struct Controller {
    process: Process,
    _folder: tempfile::TempDir,
}

impl Controller {
    async fn start(environment: &[(&str, &str)], proxy_url: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let proxy = proxy_url.map_or(String::new(), |url| format!(", proxy-url: \"{url}\""));
        let kubeconfig = folder.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             users: [{{name: u, user: {{token: t}}}}]\nclusters: [{{name: c, cluster: {{server: \"https://{API_SERVER}\"{proxy}}}}}]\n"
        );
        std::fs::write(&kubeconfig, text).unwrap();
        let mut launch = Launch::new(
            "affix",
            env!("CARGO_BIN_EXE_affix"),
            folder.path().join("log"),
        )
        .args([
            "controller",
            "--metrics-addr=0",
            "--health-addr=127.0.0.1:0",
        ])
        .env("KUBECONFIG", kubeconfig.to_str().unwrap());
        for (name, value) in environment {
            launch = launch.env(name, value);
        }
        let process = launch.start(&Tools::core().await.unwrap()).unwrap();
        Self {
            process,
            _folder: folder,
        }
    }

    /// Waits for the health server, which starts after the configuration of the cluster was read.
    async fn wait_for_start(&mut self) {
        let started = |log: &str| log.contains("serving health").then_some(());
        self.process
            .wait_for(Duration::from_mins(1), "health server", started)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_api_server_is_reached_through_the_proxy_of_the_environment() {
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let proxy = ConnectProxy::start().await;
        let mut controller = Controller::start(&[(variable, &proxy.url)], None).await;
        controller.wait_for_start().await;
        let first = proxy.wait_for_request().await;
        assert_eq!(
            first,
            format!("CONNECT {API_SERVER} HTTP/1.1"),
            "{variable}"
        );
    }
}

#[tokio::test]
async fn odd_items_of_no_proxy_are_ignored_as_in_go() {
    for no_proxy in ["a.io,,b.io", ",", " , 10.0.0.0/33,[::1", "/,a b"] {
        let proxy = ConnectProxy::start().await;
        let environment = [("HTTPS_PROXY", proxy.url.as_str()), ("NO_PROXY", no_proxy)];
        let mut controller = Controller::start(&environment, None).await;
        controller.wait_for_start().await;
        let first = proxy.wait_for_request().await;
        assert_eq!(
            first,
            format!("CONNECT {API_SERVER} HTTP/1.1"),
            "{no_proxy}"
        );
    }
}

#[tokio::test]
async fn no_proxy_excludes_the_api_server() {
    for no_proxy in ["example.test", ".example.test", API_SERVER, "*"] {
        let proxy = ConnectProxy::start().await;
        let environment = [("HTTPS_PROXY", proxy.url.as_str()), ("NO_PROXY", no_proxy)];
        let mut controller = Controller::start(&environment, None).await;
        controller.wait_for_start().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(
            proxy.requests().is_empty(),
            "{no_proxy}: {:?}",
            proxy.requests()
        );
    }
}

#[tokio::test]
async fn the_proxy_of_the_kubeconfig_comes_first() {
    let (named, other) = (ConnectProxy::start().await, ConnectProxy::start().await);
    let environment = [("HTTPS_PROXY", other.url.as_str()), ("NO_PROXY", "*")];
    let mut controller = Controller::start(&environment, Some(&named.url)).await;
    controller.wait_for_start().await;
    let first = named.wait_for_request().await;
    assert_eq!(first, format!("CONNECT {API_SERVER} HTTP/1.1"));
    assert!(other.requests().is_empty(), "{:?}", other.requests());
}
