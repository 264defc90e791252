"""What ``forklift top`` shows: snapshots of a server's ``/readyz`` and ``/metrics``, rates between them, a picture."""
