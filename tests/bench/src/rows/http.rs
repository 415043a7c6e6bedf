//! GetStatus over HTTP: Connect's JSON beside native frames and axum, gRPC beside tonic.

use bench_peers::{Failure, Peer, Sizes, connect_grpc, connect_http};
use peat_ipc::sidecar::GetStatusRequest;

use crate::bench::Bench;
use crate::native::Native;
use crate::node::Node;
use crate::process::OneProcessor;
use crate::row::Row;
use crate::sample::{compete, latency, rate};
use crate::served::Served;
use crate::table::{Figure, Line, Target};

const CONNECTIONS: usize = 32;
const SIZES: Sizes = Sizes { request: 0, response: 0 };

/// Connect in JSON over HTTP/1.1.
pub(crate) struct Connect;

impl Row for Connect {
    fn name(&self) -> &'static str {
        "connect"
    }

    fn about(&self) -> &'static str {
        "GetStatus in Connect's JSON over HTTP/1.1 keep-alive"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut node = Node::new(bench, "connect")?;
        let mut native = Native::new(node.start()?, GetStatusRequest {});
        let mut http = connect_http(node.socket())?;
        let axum = Served::start(bench, Peer::Axum, SIZES)?;
        let mut other = axum.caller()?;
        let one = {
            let _one = OneProcessor::begin()?;
            let calls = bench.times(3_000);
            let mut contenders: Vec<crate::sample::Contender<'_>> =
                vec![Box::new(|| latency(http.as_mut(), calls)), Box::new(|| latency(&mut native, calls))];
            compete(15, &mut contenders)?
        };
        let calls = bench.times(30_000);
        let many = {
            let mut contenders: Vec<crate::sample::Contender<'_>> = vec![
                Box::new(|| rate(http.as_mut(), calls, CONNECTIONS)),
                Box::new(|| rate(other.as_mut(), calls, CONNECTIONS)),
            ];
            compete(9, &mut contenders)?
        };
        Ok(vec![
            Line::relative(
                "GetStatus over Connect, p50",
                Figure::Seconds(one[0].figure()),
                ("native", Figure::Seconds(one[1].figure())),
                one[0].over(&one[1]),
                Target::at_most_times(2.0),
            ),
            Line::relative(
                "GetStatus over Connect, 32 connections",
                Figure::PerSecond(many[0].figure()),
                ("axum, empty handler", Figure::PerSecond(many[1].figure())),
                many[0].over(&many[1]),
                Target::at_least_times(1.0),
            ),
        ])
    }
}

/// gRPC with tonic's client, to the node and to tonic's server.
pub(crate) struct Grpc;

impl Row for Grpc {
    fn name(&self) -> &'static str {
        "grpc"
    }

    fn about(&self) -> &'static str {
        "GetStatus over gRPC, tonic's client"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut node = Node::new(bench, "grpc")?;
        node.start()?;
        let mut ours = connect_grpc(node.socket())?;
        let tonic = Served::start(bench, Peer::Tonic, SIZES)?;
        let mut theirs = tonic.caller()?;
        let _one = OneProcessor::begin()?;
        let calls = bench.times(3_000);
        let mut contenders: Vec<crate::sample::Contender<'_>> =
            vec![Box::new(|| latency(ours.as_mut(), calls)), Box::new(|| latency(theirs.as_mut(), calls))];
        let rounds = compete(15, &mut contenders)?;
        Ok(vec![Line::relative(
            "GetStatus over gRPC, p50",
            Figure::Seconds(rounds[0].figure()),
            ("tonic", Figure::Seconds(rounds[1].figure())),
            rounds[0].over(&rounds[1]),
            Target::at_most_times(1.0),
        )])
    }
}
