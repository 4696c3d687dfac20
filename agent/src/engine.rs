//! Whether the machine's container engine is there: it may start after the agent, stop, and come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use windlass_agent_runner::docker::Engine;
use windlass_protocol::limits::{ENGINE_LOOK_MS, ENGINE_MISSED_MAX, ENGINE_PING_MS};

/// Looks for the engine for as long as the agent runs, and keeps `runs_images` true while it answers.
pub(crate) async fn watch(engine: Engine, runs_images: Arc<AtomicBool>) {
    let mut missed = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(ENGINE_LOOK_MS)).await;
        missed = look(&engine, &runs_images, missed).await;
    }
}

/// One look; gives how many in a row the engine has not answered. One that is restarted is not taken for gone at once.
async fn look(engine: &Engine, runs_images: &AtomicBool, missed: u32) -> u32 {
    let answer = tokio::time::timeout(Duration::from_millis(ENGINE_PING_MS), engine.ping()).await;
    let Ok(Ok(())) = answer else {
        let missed = missed.saturating_add(1);
        if missed >= ENGINE_MISSED_MAX && runs_images.swap(false, Ordering::Relaxed) {
            tracing::warn!(socket = %engine.socket().display(), "container_engine_gone");
        }
        return missed;
    };
    if !runs_images.swap(true, Ordering::Relaxed) {
        tracing::info!(socket = %engine.socket().display(), "container_engine_found");
    }
    0
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;
    use windlass_protocol::AgentId;

    use super::*;

    /// An engine that answers every request in the same way; it goes with its task.
    fn engine_at(path: &Path) -> tokio::task::JoinHandle<()> {
        let door = UnixListener::bind(path).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = door.accept().await {
                tokio::spawn(async move {
                    let mut asked = [0; 4_096];
                    while stream.read(&mut asked).await.is_ok_and(|count| count > 0) {
                        let body = r#"{"ApiVersion":"1.41","Version":"20.10"}"#;
                        let head = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json";
                        let answer =
                            format!("{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        })
    }

    #[tokio::test]
    async fn an_engine_that_comes_is_seen_at_once_and_one_that_goes_after_some_looks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.sock");
        let (engine, runs_images) = (Engine::new(&path, AgentId::from_bytes([1; 16])), AtomicBool::new(false));
        assert_eq!(look(&engine, &runs_images, 0).await, 1);
        assert!(!runs_images.load(Ordering::Relaxed));
        let serving = engine_at(&path);
        assert_eq!(look(&engine, &runs_images, 1).await, 0);
        assert!(runs_images.load(Ordering::Relaxed));
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        std::fs::remove_file(&path).unwrap();
        for missed in 1..ENGINE_MISSED_MAX {
            assert_eq!(look(&engine, &runs_images, missed - 1).await, missed);
            assert!(runs_images.load(Ordering::Relaxed), "it may be restarted");
        }
        look(&engine, &runs_images, ENGINE_MISSED_MAX - 1).await;
        assert!(!runs_images.load(Ordering::Relaxed));
        let _again = engine_at(&path);
        look(&engine, &runs_images, ENGINE_MISSED_MAX).await;
        assert!(runs_images.load(Ordering::Relaxed));
    }
}
