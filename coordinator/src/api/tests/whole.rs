//! A whole coordinator over TCP: its first token works, and its own agent can be let in.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use windlass_protocol::identity::JoinToken;

use super::{DEADLINE, json};
use crate::desk::DeskEnd;
use crate::{Config, Coordinator};

async fn fetch(coordinator: &Coordinator, path: &str) -> String {
    let mut stream = TcpStream::connect(coordinator.address).await.unwrap();
    let token = coordinator.token.expose();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: w\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_serves_its_first_token_and_lets_its_own_agent_in_after_every_start() {
    let dir = tempfile::tempdir().unwrap();
    for start in 1..=2_u8 {
        let config = Config::new("127.0.0.1:0".parse().unwrap(), dir.path().join("data"));
        let coordinator = Coordinator::start(config).await.unwrap();
        assert!(fetch(&coordinator, "/readyz").await.starts_with("HTTP/1.1 200 OK\r\n"));
        let join: JoinToken = coordinator.local_join_token().await.unwrap().parse().unwrap();
        let tokens = fetch(&coordinator, "/api/v1/tokens").await;
        let (_, body) = tokens.split_once("\r\n\r\n").unwrap();
        let tokens: serde_json::Value = serde_json::from_str(body).unwrap();
        let newest = &tokens["items"][0];
        assert_eq!(newest["id"], join.id.to_string(), "start {start}: {tokens}");
        assert_eq!((&newest["pool"], &newest["uses_left"]), (&json!("local"), &json!(1)));
        assert!(coordinator.agent_online().now_or_never().is_none(), "no agent is here");
        let stopped = tokio::time::timeout(Duration::from_secs(20), coordinator.stop()).await;
        assert_eq!(stopped.unwrap(), DeskEnd::Stopped);
    }
}
