"""How long a thread of OpenMP spins at a barrier before it sleeps, for libgomp, which torch brings along.

libgomp's default spins so long that a busy neighbour on the cores made answers 14 times slower; sleeping
at once costs up to half of the speed when the cores are free. Figures in docs/performance.md.
"""

SPIN_ENVIRONMENT = {"GOMP_SPINCOUNT": "10000"}
