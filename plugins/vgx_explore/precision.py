"""Smaller ONNX files: parameters of 8 or 16 bits, which become floats again when they are read.

The arithmetic stays that of float32. onnxruntime computes the floats once, when it opens a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = NDArray[Any]
FEWEST = 1024  # values of a parameter that is worth it
KINDS = ("int8", "float16", "float32")  # the smallest first


def shrunk(data: bytes, kind: str) -> bytes:
    """Return an ONNX file with its larger float32 parameters stored as `kind`, one of `KINDS`.

    `int8` has one scale for each slice along the first or the second dimension, whichever loses
    less.
    """
    import onnx
    from onnx import numpy_helper

    if kind == "float32":
        return data
    model = onnx.load_from_string(data)
    kept, nodes = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < FEWEST:
            kept.append(tensor)
            continue
        with np.errstate(over="ignore"):  # too large for 16 bits: the difference shows it
            half = values.astype(np.float16)
        stored, scale = (half, None) if kind == "float16" else _bytes(values)
        name = tensor.name
        kept.append(numpy_helper.from_array(stored, f"{name}.stored"))
        cast = name if scale is None else f"{name}.cast"
        nodes.append(
            onnx.helper.make_node("Cast", [f"{name}.stored"], [cast], to=onnx.TensorProto.FLOAT)
        )
        if scale is not None:
            kept.append(numpy_helper.from_array(scale, f"{name}.scale"))
            nodes.append(onnx.helper.make_node("Mul", [cast, f"{name}.scale"], [name]))
    nodes += list(model.graph.node)
    for field, values in (("initializer", kept), ("node", nodes)):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(values)
    small: bytes = model.SerializeToString(deterministic=True)
    return small


def _bytes(values: Array) -> tuple[Array, Array]:
    """Return parameters as int8, and the scales that make them floats again."""
    best: tuple[float, Array, Array] | None = None
    for axis in range(min(2, values.ndim)):
        others = tuple(i for i in range(values.ndim) if i != axis)
        largest = np.abs(values).max(axis=others, keepdims=True)
        scale = (np.maximum(largest, np.finfo(np.float32).tiny) / 127).astype(np.float32)
        stored = np.rint(values / scale).clip(-127, 127).astype(np.int8)
        lost = float(np.square(stored * scale - values).sum())
        if best is None or lost < best[0]:
            best = lost, stored, scale
    assert best is not None  # a parameter of 1,024 values has a dimension
    return best[1:]


def opened(data: bytes) -> InferenceSession:
    """Return an ONNX file that is ready to run on one thread of the CPU, as in the page."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run(session: InferenceSession, inputs: Mapping[str, Array]) -> Array:
    """Return the one output of a network, computed for one input after another, as in the page."""
    n = len(next(iter(inputs.values())))
    rows = [
        session.run(None, {name: value[i : i + 1] for name, value in inputs.items()})[0]
        for i in range(n)
    ]
    return np.concatenate(rows)
