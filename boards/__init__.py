"""Boards: one small file each (``boards.arty_a7``, ``boards.ulx3s``), and what turns them into bitstreams."""
