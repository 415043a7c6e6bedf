//! The asynchronous client and server of ttrpc. This file does by hand what generated stubs would do: it puts the same message,
//! encoded by prost, into ttrpc's request and response.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use prost::Message;
use tokio::runtime::Runtime;
use ttrpc::r#async::{Client as Connection, MethodHandler, Server, Service, TtrpcContext};
use ttrpc::{Request, Response};

use crate::pb::{GetStatusRequest, GetStatusResponse};
use crate::{Caller, Failure, runtime};

const SERVICE: &str = "bench.v1.Status";
const METHOD: &str = "GetStatus";

struct GetStatus;

#[async_trait]
impl MethodHandler for GetStatus {
    async fn handler(&self, _context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        GetStatusRequest::decode(&*request.payload).map_err(|cause| ttrpc::Error::Others(cause.to_string()))?;
        let mut response = Response::new();
        response.set_status(ttrpc::get_status(ttrpc::Code::OK, String::new()));
        response.payload = GetStatusResponse::sample().encode_to_vec();
        Ok(response)
    }
}

pub(crate) fn serve(path: &Path) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let method: Box<dyn MethodHandler + Send + Sync> = Box::new(GetStatus);
        let service = Service { methods: HashMap::from([(METHOD.into(), method)]), streams: HashMap::new() };
        let server = Server::new().bind(&address(path))?;
        let mut server = server.register_service(HashMap::from([(SERVICE.into(), service)]));
        // The server answers until it is dropped.
        server.start().await?;
        std::future::pending::<()>().await;
        Ok(())
    })
}

fn address(path: &Path) -> String {
    format!("unix://{}", path.display())
}

pub(crate) struct Client {
    runtime: Runtime,
    connection: Connection,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Result<Client, Failure> {
        let runtime = runtime()?;
        let connection = runtime.block_on(Connection::connect(&address(path)))?;
        Ok(Client { runtime, connection })
    }
}

async fn call(connection: &Connection) -> Result<GetStatusResponse, Failure> {
    let mut request = Request::new();
    request.service = SERVICE.into();
    request.method = METHOD.into();
    request.payload = GetStatusRequest {}.encode_to_vec();
    let response = connection.request(request).await?;
    Ok(GetStatusResponse::decode(&*response.payload)?)
}

async fn repeat(connection: Connection, calls: usize) -> Result<(), Failure> {
    for _ in 0..calls {
        call(&connection).await?;
    }
    Ok(())
}

impl Caller for Client {
    fn one_by_one(&mut self, calls: usize, took: &mut Vec<Duration>) -> Result<(), Failure> {
        let connection = &self.connection;
        self.runtime.block_on(async {
            for _ in 0..calls {
                let begun = Instant::now();
                call(connection).await?;
                took.push(begun.elapsed());
            }
            Ok(())
        })
    }

    fn in_flight(&mut self, calls: usize, width: usize) -> Result<Duration, Failure> {
        let connection = &self.connection;
        self.runtime.block_on(async {
            let begun = Instant::now();
            let tasks: Vec<_> = (0..width).map(|_| tokio::spawn(repeat(connection.clone(), calls / width))).collect();
            for task in tasks {
                task.await??;
            }
            Ok(begun.elapsed())
        })
    }
}
