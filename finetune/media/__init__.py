"""A picture or a video from anywhere, as RGB, or an error that names it.

Read `sources` (of bytes), `pictures`, `sampling` (which frames of a video), `films`.
"""
