"""A picture or a video from anywhere, as RGB, or an error that names it.

Read `sources` (of bytes), `images`, `size_limit`, `sampling` (which frames of a video), `videos`.
"""
