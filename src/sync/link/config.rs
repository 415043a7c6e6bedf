//! QUIC configuration: windows, timers and keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, ConnectionId, EndpointConfig, IdleTimeout, NoneTokenStore, ServerConfig, TimeSource, TransportConfig,
    VarInt,
};
use ring::{hkdf, hmac};

use crate::identity::Identity;
use crate::limits::UNPROVEN_CONNECTIONS;
use crate::sync::link::Lane;
use crate::sync::link::keys::{CidGenerator, Cids, Generator};
use crate::sync::link::pace::{Rate, Steady};
use crate::sync::link::tls;

/// Idle timeout. QUIC restarts it with the first keep-alive (RFC 9000, section 10.1), so a link that dies while idle is
/// detected after [`KEEP_ALIVE`] and this: 30 s.
const IDLE: Duration = Duration::from_secs(18);
/// Interval of keep-alives on an idle link.
const KEEP_ALIVE: Duration = Duration::from_secs(12);
/// Round-trip time assumed before one was measured.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Receive window of one lane, in bytes.
const LANE_WINDOW_BYTES: u32 = 256 << 10;
/// Receive window of all lanes of one link, in bytes, once it is admitted. Four lanes are left unread while the store takes
/// nothing; there must be room for the fifth, control, which carries acknowledgements.
pub(super) const LINK_WINDOW_BYTES: u32 = 5 * LANE_WINDOW_BYTES;
/// The same before it is admitted.
const UNPROVEN_WINDOW_BYTES: u32 = 64 << 10;
/// Bytes written but not yet acknowledged by the peer's QUIC, on all lanes of one link.
pub(super) const SEND_WINDOW_BYTES: u64 = 512 << 10;
/// Bytes of datagrams buffered between a connection's first one and its acceptance, which is immediate.
const INCOMING_BYTES: u64 = 16 << 10;
/// Handshake bytes buffered out of order.
const CRYPTO_BYTES: usize = 8 << 10;
/// Length of the connection id that a dialler chooses for the acceptor, in bytes; RFC 9000 requires at least 8.
const INITIAL_CID_BYTES: usize = 16;

const _: () = assert!(LINK_WINDOW_BYTES as usize / LANE_WINDOW_BYTES as usize >= Lane::ALL.len());
const _: () = assert!(KEEP_ALIVE.as_secs() + IDLE.as_secs() <= 30, "when a dead idle link is noticed");

/// Configuration of the endpoint.
pub(super) struct Setup {
    pub(super) endpoint: EndpointConfig,
    pub(super) server: ServerConfig,
    pub(super) client: ClientConfig,
}

impl Setup {
    pub(super) fn new(identity: &Identity, random: &'static Generator, cids: &Arc<Cids>, clock: &Arc<Clock>) -> Setup {
        Setup {
            endpoint: endpoint(identity, random, Arc::clone(cids)),
            server: server(identity, random, Arc::clone(clock)),
            client: client(identity, random),
        }
    }
}

fn endpoint(identity: &Identity, random: &'static Generator, cids: Arc<Cids>) -> EndpointConfig {
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &identity.derive("peat-quic-reset-v1"));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.rng_seed(Some(random.array()));
    config.cid_generator(move || Box::new(CidGenerator(Arc::clone(&cids))));
    config.grease_quic_bit(false);
    config
}

fn server(identity: &Identity, random: &'static Generator, clock: Arc<Clock>) -> ServerConfig {
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&random.array::<32>());
    let crypto = QuicServerConfig::try_from(tls::server(identity, random)).expect("AES-128-GCM is among the suites");
    let mut config = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
    // The dialler opens the control lane, and each side one stream for each further lane.
    config.transport_config(Arc::new(transport(1, &Rate::default(), None)));
    config.max_incoming(UNPROVEN_CONNECTIONS);
    config.incoming_buffer_size(INCOMING_BYTES);
    config.incoming_buffer_size_total(INCOMING_BYTES * UNPROVEN_CONNECTIONS as u64);
    config.time_source(clock);
    config
}

fn client(identity: &Identity, random: &'static Generator) -> ClientConfig {
    let crypto = QuicClientConfig::try_from(tls::client(identity, random)).expect("AES-128-GCM is among the suites");
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport(0, &Rate::default(), None)));
    config.token_store(Arc::new(NoneTokenStore));
    config.initial_dst_cid_provider(Arc::new(|| ConnectionId::new(&random.array::<INITIAL_CID_BYTES>())));
    config
}

/// Returns the transport configuration of a link with this rate, and this round-trip time if one is known.
pub(super) fn transport(bidirectional: u32, rate: &Rate, rtt: Option<Duration>) -> TransportConfig {
    let mut config = TransportConfig::default();
    config.congestion_controller_factory(Arc::new(Steady(rate.clone())));
    config.max_concurrent_bidi_streams(VarInt::from_u32(bidirectional));
    config.max_concurrent_uni_streams(VarInt::from_u32(4));
    config.max_idle_timeout(Some(IdleTimeout::try_from(IDLE).expect("18 s fit")));
    config.keep_alive_interval(Some(KEEP_ALIVE));
    config.initial_rtt(rtt.unwrap_or(INITIAL_RTT));
    config.stream_receive_window(VarInt::from_u32(LANE_WINDOW_BYTES));
    config.receive_window(VarInt::from_u32(UNPROVEN_WINDOW_BYTES));
    config.send_window(SEND_WINDOW_BYTES);
    config.crypto_buffer_size(CRYPTO_BYTES);
    config.mtu_discovery_config(None);
    config.datagram_receive_buffer_size(None);
    config.datagram_send_buffer_size(0);
    config.enable_segmentation_offload(false);
    config.allow_spin(false);
    config
}

/// Time in retry tokens: the engine's last reading, from an arbitrary origin.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    elapsed_ms: AtomicU64,
}

impl Clock {
    pub(super) fn new(started: Instant) -> Arc<Clock> {
        Arc::new(Clock { started, elapsed_ms: AtomicU64::new(0) })
    }

    pub(super) fn set(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.started).as_millis();
        self.elapsed_ms.store(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.elapsed_ms.load(Ordering::Relaxed))
    }
}
