//! For tests: both ends of a real connection on loopback, the coordinator's played by the test.

use std::time::Duration;

use quinn::{Connection, Endpoint};
use tokio::sync::mpsc;
use windlass_protocol::host::now;
use windlass_protocol::identity::{AgentKey, AgentName, Ca, tls};
use windlass_protocol::job::{JobSpec, Resources, Source};
use windlass_protocol::limits::CERT_LIFE_MS;
use windlass_protocol::link::{Protocol, accept, bind_client, bind_server, transport};
use windlass_protocol::{AgentId, AttemptId, BuildId, JobId, Namespace, Trust, WallMs};

use crate::session::Dial;

/// No test waits longer for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A coordinator's endpoint, and what an agent needs to dial it.
pub(crate) struct Link {
    pub(crate) dial: Dial,
    /// The same, for blobs.
    pub(crate) bulk: Dial,
    accepted: mpsc::Receiver<Connection>,
    _server: Endpoint,
}

impl Link {
    pub(crate) fn new() -> Self {
        let at = WallMs(now().wall.0 - 60_000);
        let ca = Ca::create(now().wall).unwrap();
        let certificate = ca.issue_server(&[], &[], at, CERT_LIFE_MS).unwrap();
        let config = tls::quic_server_config(&certificate, ca.certificate_der()).unwrap();
        let server = bind_server("127.0.0.1:0".parse().unwrap(), transport::server_config(config).unwrap()).unwrap();
        let key = AgentKey::generate().unwrap();
        let agent = AgentId::from_bytes([7; 16]);
        let name = AgentName { agent, pool: "p".to_owned(), zone: "z".to_owned(), trust: Trust::Trusted };
        let chain = ca.issue_agent(&key.csr().unwrap(), &name, at, CERT_LIFE_MS).unwrap();
        let endpoint = bind_client().unwrap();
        let [dial, bulk] = [Protocol::Agent, Protocol::Bulk].map(|protocol| {
            let config = tls::agent_client_config(ca.certificate_der(), &chain, &key, protocol.alpn()).unwrap();
            Dial {
                endpoint: endpoint.clone(),
                servers: vec![server.local_addr().unwrap().to_string()],
                config: transport::client_config(config).unwrap(),
            }
        });
        let (taken, accepted) = mpsc::channel(8);
        let listening = server.clone();
        tokio::spawn(async move {
            while let Some(incoming) = listening.accept().await {
                let connection = accept(incoming).await.unwrap().connection;
                if taken.send(connection).await.is_err() {
                    break;
                }
            }
        });
        Self { dial, bulk, accepted, _server: server }
    }

    /// The agent's end and the coordinator's of a new connection.
    pub(crate) async fn pair(&mut self) -> (Connection, Connection) {
        let ours = self.dial.connection(Protocol::Agent).await.unwrap();
        (ours, self.accepted().await)
    }

    /// The coordinator's end of the next connection, however long that takes.
    pub(crate) async fn next(&mut self) -> Connection {
        self.accepted.recv().await.unwrap()
    }

    /// The coordinator's end of the next connection.
    pub(crate) async fn accepted(&mut self) -> Connection {
        in_time(self.accepted.recv()).await.unwrap()
    }
}

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

/// A job that asks for nothing special.
pub(crate) fn job() -> JobSpec {
    JobSpec {
        attempt: AttemptId::from_bytes([1; 16]),
        attempt_number: 1,
        job: JobId::from_bytes([2; 16]),
        build: BuildId::from_bytes([3; 16]),
        build_number: 4,
        pipeline: "hello".to_owned(),
        step_key: None,
        label: "Tests".to_owned(),
        command: "true".to_owned(),
        env: Vec::new(),
        image: None,
        source: Source::Empty,
        namespace: Namespace::overlay("hello", "laptop"),
        queue: "default".to_owned(),
        timeout_ms: None,
        grace_ms: 10,
        resources: Resources::default(),
        exclusive: false,
        interruptible: false,
        tty: false,
        keep_workspace: false,
        log_limit_bytes: 1,
    }
}
