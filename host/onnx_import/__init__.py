"""Import ONNX networks: ``import_onnx(path)``; ``docs/onnx.md`` lists what is supported."""

from host.onnx_import.importer import import_onnx

__all__ = ["import_onnx"]
