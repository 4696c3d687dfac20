//! For tests: both ends of a real connection on loopback, the coordinator's played by the test.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint};
use tokio::sync::mpsc;
use windlass_protocol::host::now;
use windlass_protocol::identity::{AgentIdentity, AgentKey, AgentName, Ca, tls};
use windlass_protocol::job::{JobSpec, Resources, Source};
use windlass_protocol::limits::CERT_LIFE_MS;
use windlass_protocol::link::{Protocol, accept, bind_client, bind_server, transport};
use windlass_protocol::{AgentId, AttemptId, BuildId, JobId, Namespace, Trust, WallMs};

use crate::bulk::kit::Origin;
use crate::peer::{Peers, Shown};
use crate::session::Dial;

/// No test waits longer for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A coordinator's endpoint, and what an agent needs to dial it.
pub(crate) struct Link {
    pub(crate) dial: Dial,
    /// The same, for blobs.
    pub(crate) bulk: Dial,
    accepted: mpsc::Receiver<Connection>,
    server: Endpoint,
    ca: Ca,
    /// Of the agent.
    shown: Shown,
}

/// Another agent of the same coordinator's.
pub(crate) struct Agent {
    pub(crate) bulk: Dial,
    pub(crate) shown: Shown,
}

impl Link {
    pub(crate) fn new() -> Self {
        let at = WallMs(now().wall.0 - 60_000);
        let ca = Ca::create(now().wall).unwrap();
        let certificate = ca.issue_server(&[], &[], at, CERT_LIFE_MS).unwrap();
        let config = tls::quic_server_config(&certificate, ca.certificate_der()).unwrap();
        let server = bind_server("127.0.0.1:0".parse().unwrap(), transport::server_config(config).unwrap()).unwrap();
        let ([dial, bulk], shown) = agent_of(&ca, &server, 7, ("z", Trust::Trusted));
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
        Self { dial, bulk, accepted, server, ca, shown }
    }

    /// Another agent.
    pub(crate) fn agent(&self, number: u8, place: (&str, Trust)) -> Agent {
        let ([_, bulk], shown) = agent_of(&self.ca, &self.server, number, place);
        Agent { bulk, shown }
    }

    /// Those of an agent that has none.
    pub(crate) fn peers(&self) -> Arc<Peers> {
        Peers::new(self.shown.clone(), None)
    }

    /// The agent's end and the coordinator's of a new connection.
    pub(crate) async fn pair(&mut self) -> (Connection, Connection) {
        let ours = self.dial.connection(Protocol::Agent).await.unwrap();
        (ours, self.accepted().await)
    }

    /// Lets an origin serve all connections from now on.
    pub(crate) fn hand_over(&mut self, origin: &Origin) {
        let (_, nobody) = mpsc::channel(1);
        let mut accepted = std::mem::replace(&mut self.accepted, nobody);
        let origin = origin.clone();
        tokio::spawn(async move {
            while let Some(connection) = accepted.recv().await {
                tokio::spawn(origin.clone().serve(connection));
            }
        });
    }

    /// The coordinator's end of the next connection.
    pub(crate) async fn accepted(&mut self) -> Connection {
        in_time(self.accepted.recv()).await.unwrap()
    }
}

/// How an agent dials its coordinator, for control and for blobs, and what it shows others.
fn agent_of(ca: &Ca, server: &Endpoint, number: u8, (zone, trust): (&str, Trust)) -> ([Dial; 2], Shown) {
    let at = WallMs(now().wall.0 - 60_000);
    let key = AgentKey::generate().unwrap();
    let agent = AgentId::from_bytes([number; 16]);
    let name = AgentName { agent, pool: "p".to_owned(), zone: zone.to_owned(), trust };
    let chain = ca.issue_agent(&key.csr().unwrap(), &name, at, CERT_LIFE_MS).unwrap();
    let endpoint = bind_client().unwrap();
    let ca = ca.certificate_der();
    let dials = [Protocol::Agent, Protocol::Bulk].map(|protocol| {
        let config = tls::agent_client_config(ca, &chain, &key, protocol.alpn()).unwrap();
        Dial {
            endpoint: endpoint.clone(),
            servers: vec![server.local_addr().unwrap().to_string()],
            config: transport::client_config(config).unwrap(),
        }
    });
    let client = transport::client_config(tls::peer_client_config(ca, &chain, &key).unwrap()).unwrap();
    let serving = transport::server_config(tls::peer_server_config(ca, &chain, &key).unwrap()).unwrap();
    let named = AgentIdentity::from_certificate(&chain[0]).unwrap();
    (dials, Shown { named, client, server: serving })
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
