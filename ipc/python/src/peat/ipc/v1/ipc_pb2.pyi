from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("call", "request", "response", "item", "end", "error", "cancel", "credit", "upload", "half_close", "part")
    CALL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    HALF_CLOSE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    call: int
    request: Request
    response: bytes
    item: bytes
    end: End
    error: Error
    cancel: Cancel
    credit: int
    upload: bytes
    half_close: End
    part: bytes
    def __init__(self, call: _Optional[int] = ..., request: _Optional[_Union[Request, _Mapping]] = ..., response: _Optional[bytes] = ..., item: _Optional[bytes] = ..., end: _Optional[_Union[End, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., credit: _Optional[int] = ..., upload: _Optional[bytes] = ..., half_close: _Optional[_Union[End, _Mapping]] = ..., part: _Optional[bytes] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("method", "payload", "deadline_ms", "credit", "token", "takes_parts")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TAKES_PARTS_FIELD_NUMBER: _ClassVar[int]
    method: int
    payload: bytes
    deadline_ms: int
    credit: int
    token: str
    takes_parts: bool
    def __init__(self, method: _Optional[int] = ..., payload: _Optional[bytes] = ..., deadline_ms: _Optional[int] = ..., credit: _Optional[int] = ..., token: _Optional[str] = ..., takes_parts: bool = ...) -> None: ...

class End(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Cancel(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...
