"""The host side: ONNX import, quantisation, compilation, drivers, video and the ``rrm-fpga`` command."""
