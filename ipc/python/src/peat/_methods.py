"""Numbers of methods in request frames; docs/wire.md has the table."""

from __future__ import annotations

from enum import IntEnum


class Method(IntEnum):
    """Each method's number, in the order of the service definitions."""

    GetStatus = 1
    ConnectPeer = 2
    DisconnectPeer = 3
    ListPeers = 4
    PutDocument = 5
    GetDocument = 6
    DeleteDocument = 7
    ListDocuments = 8
    PutPlatform = 9
    GetPlatforms = 10
    PutCell = 11
    GetCells = 12
    PutTrack = 13
    GetTracks = 14
    PutCommand = 15
    GetCommands = 16
    Subscribe = 17
    StartSync = 18
    StopSync = 19
    GetSyncStats = 20
    PatchDocument = 21
    CompactDocument = 22
    GetHealth = 23
    CancelCommand = 24
    ListAgents = 25
    WatchAgents = 26
    Connect = 27
