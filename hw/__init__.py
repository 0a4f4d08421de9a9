"""The accelerator in Amaranth: one configurable ring (``hw.ring.Ring``), its blocks and its memory layouts."""
