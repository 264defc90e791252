"""The ``forklift`` program: one module per command, thin over small modules that can be tested.

``main.py`` mounts the commands. ``checking/`` is behind ``doctor``, ``loading/`` behind ``bench``, ``packing/`` behind
``pack``, ``watching/`` behind ``top``. At import nothing here imports torch, transformers or Flask: what needs them
does so when it runs, and ``forklift --help`` answers at once.
"""
