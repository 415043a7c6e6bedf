//! tonic over a unix socket: one thread on each side, no middleware, and windows large enough never to stall a call.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

use crate::pb::peat_sidecar_client::PeatSidecarClient as StatusClient;
use crate::pb::peat_sidecar_server::{PeatSidecar as StatusService, PeatSidecarServer as StatusServer};
use crate::pb::{GetStatusRequest, GetStatusResponse};
use crate::{Caller, Failure, runtime};

struct Answers;

#[tonic::async_trait]
impl StatusService for Answers {
    async fn get_status(&self, _request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(GetStatusResponse::sample()))
    }
}

pub(crate) fn serve(path: &Path) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let incoming = UnixListenerStream::new(UnixListener::bind(path)?);
        Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_concurrent_streams(None)
            .add_service(StatusServer::new(Answers))
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    })
}

pub(crate) struct Client {
    runtime: Runtime,
    client: StatusClient<Channel>,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Result<Client, Failure> {
        let runtime = runtime()?;
        let channel = runtime.block_on(connect(path.to_owned()))?;
        Ok(Client { runtime, client: StatusClient::new(channel) })
    }
}

async fn connect(path: PathBuf) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_static("http://localhost")
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    let dial = move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    };
    endpoint.connect_with_connector(tower::service_fn(dial)).await
}

impl Caller for Client {
    fn one_by_one(&mut self, calls: usize, took: &mut Vec<Duration>) -> Result<(), Failure> {
        let client = &mut self.client;
        self.runtime.block_on(async {
            for _ in 0..calls {
                let begun = Instant::now();
                client.get_status(GetStatusRequest {}).await?;
                took.push(begun.elapsed());
            }
            Ok(())
        })
    }

    fn in_flight(&mut self, calls: usize, width: usize) -> Result<Duration, Failure> {
        let client = &self.client;
        self.runtime.block_on(async {
            let begun = Instant::now();
            let tasks: Vec<_> = (0..width).map(|_| tokio::spawn(repeat(client.clone(), calls / width))).collect();
            for task in tasks {
                task.await??;
            }
            Ok(begun.elapsed())
        })
    }
}

async fn repeat(mut client: StatusClient<Channel>, calls: usize) -> Result<(), Status> {
    for _ in 0..calls {
        client.get_status(GetStatusRequest {}).await?;
    }
    Ok(())
}
