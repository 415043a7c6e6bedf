package peat

import "fmt"

// methodNumber is the number of a method in a request frame; docs/wire.md has the table.
type methodNumber uint32

const (
	methodGetStatus methodNumber = iota + 1
	methodConnectPeer
	methodDisconnectPeer
	methodListPeers
	methodPutDocument
	methodGetDocument
	methodDeleteDocument
	methodListDocuments
	methodPutPlatform
	methodGetPlatforms
	methodPutCell
	methodGetCells
	methodPutTrack
	methodGetTracks
	methodPutCommand
	methodGetCommands
	methodSubscribe
	methodStartSync
	methodStopSync
	methodGetSyncStats
	methodPatchDocument
	methodCompactDocument
	methodGetHealth
	methodCancelCommand
	methodListAgents
	methodWatchAgents
	methodConnect
)

var methodNames = [...]string{
	"", "GetStatus", "ConnectPeer", "DisconnectPeer", "ListPeers", "PutDocument", "GetDocument", "DeleteDocument",
	"ListDocuments", "PutPlatform", "GetPlatforms", "PutCell", "GetCells", "PutTrack", "GetTracks", "PutCommand",
	"GetCommands", "Subscribe", "StartSync", "StopSync", "GetSyncStats", "PatchDocument", "CompactDocument", "GetHealth",
	"CancelCommand", "ListAgents", "WatchAgents", "AgentLink.Connect",
}

// String returns the name in the service definition.
func (m methodNumber) String() string {
	if m < 1 || int(m) >= len(methodNames) {
		return fmt.Sprintf("method %d", uint32(m))
	}
	return methodNames[m]
}
