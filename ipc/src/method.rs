//! The methods of `peat.sidecar.v1.PeatSidecar` and their numbers on the wire.

use prost::{DecodeError, Message};

use crate::sidecar::*;

/// Number of `peat.agent.v1.AgentLink.Connect`, the only method of another service and the only one with uploads. The request's
/// payload is the first `AgentMessage` or empty, each further one is an upload, and each item is a `NodeMessage`.
pub const AGENT_LINK: u32 = 27;

/// A request message, which identifies its method and its response type.
pub trait Rpc: Message {
    /// The method that takes this request.
    const METHOD: Method;
    /// Type of the response: the whole answer of a unary call, or one item of a stream.
    type Response: Message + Default;
}

/// Defines the methods, one line each; numbers are never reused.
macro_rules! methods {
    ($($number:literal $name:ident($request:ident) -> $response:ident;)*) => {
        /// A method of the service; the discriminant is its number in a request frame. Number 0 is not used.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[repr(u32)]
        #[allow(missing_docs, reason = "the service definition documents each")]
        pub enum Method {
            $($name = $number,)*
        }

        impl Method {
            /// Every method, in numeric order.
            pub const ALL: &[Method] = &[$(Method::$name,)*];

            /// Returns the method with this number.
            #[must_use]
            pub fn from_number(number: u32) -> Option<Method> {
                match number {
                    $($number => Some(Method::$name),)*
                    _ => None,
                }
            }

            /// Returns the name in the service definition, such as `GetStatus`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Method::$name => stringify!($name),)*
                }
            }
        }

        $(impl Rpc for $request {
            const METHOD: Method = Method::$name;
            type Response = $response;
        })*

        /// A decoded request of any method.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "one variant per method")]
        pub enum Request {
            $($name($request),)*
        }

        impl Request {
            /// Decodes the payload of a request frame.
            ///
            /// # Errors
            /// The payload is not the method's request message.
            pub fn decode(method: Method, payload: &[u8]) -> Result<Request, DecodeError> {
                match method {
                    $(Method::$name => $request::decode(payload).map(Request::$name),)*
                }
            }

            /// Returns the method of this request.
            #[must_use]
            pub fn method(&self) -> Method {
                match self {
                    $(Request::$name(_) => Method::$name,)*
                }
            }
        }

        /// A response of any method: a unary answer or one item of a stream.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "one variant per method")]
        pub enum Response {
            $($name($response),)*
        }

        impl Response {
            /// Returns the size of the encoded message in bytes.
            #[must_use]
            pub fn encoded_len(&self) -> usize {
                match self {
                    $(Response::$name(message) => message.encoded_len(),)*
                }
            }

            /// Appends the encoded message.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Response::$name(message) => message.encode_raw(out),)*
                }
            }
        }

        $(impl From<$response> for Response {
            fn from(message: $response) -> Response {
                Response::$name(message)
            }
        })*
    };
}

methods! {
    1 GetStatus(GetStatusRequest) -> GetStatusResponse;
    2 ConnectPeer(ConnectPeerRequest) -> ConnectPeerResponse;
    3 DisconnectPeer(DisconnectPeerRequest) -> DisconnectPeerResponse;
    4 ListPeers(ListPeersRequest) -> ListPeersResponse;
    5 PutDocument(PutDocumentRequest) -> PutDocumentResponse;
    6 GetDocument(GetDocumentRequest) -> GetDocumentResponse;
    7 DeleteDocument(DeleteDocumentRequest) -> DeleteDocumentResponse;
    8 ListDocuments(ListDocumentsRequest) -> ListDocumentsResponse;
    9 PutPlatform(PutPlatformRequest) -> PutPlatformResponse;
    10 GetPlatforms(GetPlatformsRequest) -> GetPlatformsResponse;
    11 PutCell(PutCellRequest) -> PutCellResponse;
    12 GetCells(GetCellsRequest) -> GetCellsResponse;
    13 PutTrack(PutTrackRequest) -> PutTrackResponse;
    14 GetTracks(GetTracksRequest) -> GetTracksResponse;
    15 PutCommand(PutCommandRequest) -> PutCommandResponse;
    16 GetCommands(GetCommandsRequest) -> GetCommandsResponse;
    17 Subscribe(SubscribeRequest) -> DocumentChange;
    18 StartSync(StartSyncRequest) -> StartSyncResponse;
    19 StopSync(StopSyncRequest) -> StopSyncResponse;
    20 GetSyncStats(GetSyncStatsRequest) -> GetSyncStatsResponse;
    21 PatchDocument(PatchDocumentRequest) -> PatchDocumentResponse;
    22 CompactDocument(CompactDocumentRequest) -> CompactDocumentResponse;
    23 GetHealth(GetHealthRequest) -> GetHealthResponse;
    24 CancelCommand(CancelCommandRequest) -> CancelCommandResponse;
    25 ListAgents(ListAgentsRequest) -> ListAgentsResponse;
    26 WatchAgents(WatchAgentsRequest) -> AgentChange;
}

impl Method {
    /// Returns the number in a request frame.
    #[must_use]
    pub fn number(self) -> u32 {
        self as u32
    }

    /// Returns true if the answer is a stream of items.
    #[must_use]
    pub fn is_stream(self) -> bool {
        matches!(self, Method::Subscribe | Method::WatchAgents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_zero_is_no_method() {
        assert_eq!(Method::from_number(0), None);
        for (index, method) in Method::ALL.iter().enumerate() {
            assert_eq!(method.number() as usize, index + 1);
            assert_eq!(Method::from_number(method.number()), Some(*method));
        }
        assert_eq!(Method::from_number(AGENT_LINK), None);
    }

    #[test]
    fn names_are_those_of_the_service_definition_in_its_order() {
        let definition = include_str!("../../proto/peat/sidecar/v1/sidecar.proto");
        let defined = definition.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
        assert!(defined.eq(Method::ALL.iter().map(|method| method.name())));
    }
}
