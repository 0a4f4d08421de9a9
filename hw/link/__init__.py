"""The host link: packets over a byte stream, and what their commands do to the ring (see docs/link.md)."""
