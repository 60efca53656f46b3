"""Messages of the Open Inference Protocol (KServe v2, gRPC): field numbers and names are the public standard's.

`RepositoryIndex` is the model repository extension, which clients and other servers share, and so is the stream of
requests.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from edge_deploy.core.require import require

__all__ = ["METHODS", "SERVICE", "STREAM", "message", "method_path"]

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

# Method to request and response.
METHODS = {
    "ServerLive": ("ServerLiveRequest", "ServerLiveResponse"),
    "ServerReady": ("ServerReadyRequest", "ServerReadyResponse"),
    "ModelReady": ("ModelReadyRequest", "ModelReadyResponse"),
    "ServerMetadata": ("ServerMetadataRequest", "ServerMetadataResponse"),
    "ModelMetadata": ("ModelMetadataRequest", "ModelMetadataResponse"),
    "ModelInfer": ("ModelInferRequest", "ModelInferResponse"),
    "RepositoryIndex": ("RepositoryIndexRequest", "RepositoryIndexResponse"),
}

# Requests and answers in turns over one stream, ModelInferRequest to ModelStreamInferResponse.
STREAM = "ModelStreamInfer"

# Message to its fields in the order of their numbers, from 1 on: name, type, with * where it is repeated. A dotted name
# is a message inside another one; "map" is from strings to InferParameter.
_TENSOR = ("name string", "datatype string", "shape int64*")
_NAMED = ("name string", "version string")
_MESSAGES: dict[str, tuple[str, ...]] = {
    "InferParameter": ("bool_param bool?", "int64_param int64?", "string_param string?", "double_param double?"),
    "InferTensorContents": (
        "bool_contents bool*",
        "int_contents int32*",
        "int64_contents int64*",
        "uint_contents uint32*",
        "uint64_contents uint64*",
        "fp32_contents float*",
        "fp64_contents double*",
        "bytes_contents bytes*",
    ),
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("live bool",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("ready bool",),
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": ("ready bool",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": (*_NAMED, "extensions string*"),
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelMetadataResponse": (
        "name string",
        "versions string*",
        "platform string",
        "inputs ModelMetadataResponse.TensorMetadata*",
        "outputs ModelMetadataResponse.TensorMetadata*",
    ),
    "ModelInferRequest.InferInputTensor": (*_TENSOR, "parameters map", "contents InferTensorContents"),
    "ModelInferRequest.InferRequestedOutputTensor": ("name string", "parameters map"),
    "ModelInferRequest": (
        "model_name string",
        "model_version string",
        "id string",
        "parameters map",
        "inputs ModelInferRequest.InferInputTensor*",
        "outputs ModelInferRequest.InferRequestedOutputTensor*",
        "raw_input_contents bytes*",
    ),
    "ModelInferResponse.InferOutputTensor": (*_TENSOR, "parameters map", "contents InferTensorContents"),
    "ModelInferResponse": (
        "model_name string",
        "model_version string",
        "id string",
        "parameters map",
        "outputs ModelInferResponse.InferOutputTensor*",
        "raw_output_contents bytes*",
    ),
    "ModelStreamInferResponse": ("error_message string", "infer_response ModelInferResponse"),
    "RepositoryIndexRequest": ("repository_name string", "ready bool"),
    "RepositoryIndexResponse.ModelIndex": (*_NAMED, "state string", "reason string"),
    "RepositoryIndexResponse": ("models RepositoryIndexResponse.ModelIndex*",),
}


def method_path(method: str) -> str:
    """The method as gRPC names it."""
    return f"/{SERVICE}/{method}"


@cache
def message(name: str) -> Any:
    """The class of a message, e.g. `message("ModelInferRequest")`.

    Raises:
        MissingExtra: protobuf is not installed.
    """
    factory = require("google.protobuf.message_factory", extra="run")
    return factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


@cache
def _pool() -> Any:
    # A pool of our own: other clients of this protocol in the same process register the same names.
    pools = require("google.protobuf.descriptor_pool", extra="run")
    descriptors = require("google.protobuf.descriptor_pb2", extra="run")
    file = descriptors.FileDescriptorProto(name="open_inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    for name, fields in sorted(_MESSAGES.items(), key=lambda entry: entry[0].count(".")):
        outer, _, inner = name.rpartition(".")
        place = made[outer].nested_type if outer else file.message_type
        made[name] = place.add(name=inner)
        for number, field in enumerate(fields, start=1):
            _add_field(made[name], name, number, *field.split())
    pool = pools.DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(owner: Any, owner_name: str, number: int, name: str, kind: str) -> None:
    field = owner.field.add(name=name, number=number, label=1)
    if kind == "map":
        entry = owner.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        _add_field(entry, "", 1, "key", "string")
        _add_field(entry, "", 2, "value", "InferParameter")
        kind = f"{owner_name}.ParametersEntry*"
    if kind.endswith("*"):
        field.label, kind = field.LABEL_REPEATED, kind[:-1]
    elif kind.endswith("?"):
        if not owner.oneof_decl:
            owner.oneof_decl.add(name="parameter_choice")
        field.oneof_index, kind = 0, kind[:-1]
    if kind[0].isupper():
        field.type, field.type_name = field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(field, f"TYPE_{kind.upper()}")
