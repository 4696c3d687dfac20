//! The thread on which requests are made: callers are threads of any kind, and wait.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use windlass_protocol::limits::ORIGIN_DEADLINE_MS;

use crate::Failed;

/// Makes requests for those who wait for them.
#[derive(Debug)]
pub(crate) struct Requests {
    /// Taken when it is dropped.
    runtime: Option<Runtime>,
}

impl Requests {
    pub(crate) fn new() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("bucket").enable_all().build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Waits for a request, from any thread: also from one that an executor runs on, which waits with it then.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T, Failed> {
        let Some(runtime) = &self.runtime else { return Err(Failed::Late) };
        let (tell, told) = mpsc::sync_channel(1);
        let task = runtime.spawn(async move {
            // Whoever waited may be gone.
            let _ = tell.send(request.await);
        });
        match told.recv_timeout(Duration::from_millis(ORIGIN_DEADLINE_MS)) {
            Ok(answer) => answer.map_err(Failed::Store),
            Err(_) => {
                task.abort();
                Err(Failed::Late)
            }
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The last one who has the store may be a task, where waiting is not allowed.
            runtime.shutdown_background();
        }
    }
}
