"""The host's end of the link: packets over any byte stream, and the driver (see docs/link.md)."""
