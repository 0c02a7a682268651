"""The messages of ttrpc and of the confidential data hub, made by the protobuf library from what is published of them.

Sources: containerd/ttrpc, ttrpc.proto and PROTOCOL.md; confidential-containers/guest-components,
protos/confidential-data-hub/api.proto. It shares no code with the product, which writes and reads these by itself.
"""

from __future__ import annotations

import struct
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

HEADER = struct.Struct(">IIBB")
REQUEST, RESPONSE = 1, 2
LONGEST = 4 << 20
SERVICE, METHOD = "api.GetResourceService", "GetResource"

_Field = descriptor_pb2.FieldDescriptorProto
_STRING, _BYTES, _INT64, _INT32, _MESSAGE = (
    *(_Field.TYPE_STRING, _Field.TYPE_BYTES, _Field.TYPE_INT64),
    *(_Field.TYPE_INT32, _Field.TYPE_MESSAGE),
)
# name of the message: name, number and type of its fields
_MESSAGES = {
    "Request": (
        *(("service", 1, _STRING), ("method", 2, _STRING), ("payload", 3, _BYTES)),
        ("timeout_nano", 4, _INT64),
    ),
    "Status": (("code", 1, _INT32), ("message", 2, _STRING)),
    "Response": (("status", 1, _MESSAGE), ("payload", 2, _BYTES)),
    "GetResourceRequest": (("ResourcePath", 1, _STRING),),
    "GetResourceResponse": (("Resource", 1, _BYTES),),
}


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="stand-in.proto", package="standin", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            message.field.add(
                name=field,
                number=number,
                type=kind,
                label=_Field.LABEL_OPTIONAL,
                type_name=".standin.Status" if kind == _MESSAGE else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"standin.{name}")) for name in _MESSAGES}


_CLASS = _classes()


def frame(kind: int, data: bytes, *, stream: int = 1, flags: int = 0) -> bytes:
    """Write a message with its header."""
    return HEADER.pack(len(data), stream, kind, flags) + data


def request(data: bytes) -> Any:
    """Read a Request."""
    return _CLASS["Request"].FromString(data)


def resource_path(payload: bytes) -> str:
    """Read what a GetResourceRequest asks for."""
    return str(_CLASS["GetResourceRequest"].FromString(payload).ResourcePath)


def resource(value: bytes) -> bytes:
    """Write a GetResourceResponse."""
    return bytes(_CLASS["GetResourceResponse"](Resource=value).SerializeToString())


def response(payload: bytes = b"", *, code: int = 0, message: str = "") -> bytes:
    """Write a Response; as the servers do, with a status in any case."""
    status = _CLASS["Status"](code=code, message=message)
    return bytes(_CLASS["Response"](status=status, payload=payload).SerializeToString())


def read_response(data: bytes) -> Any:
    """Read a Response."""
    return _CLASS["Response"].FromString(data)
