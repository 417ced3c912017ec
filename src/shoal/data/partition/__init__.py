"""Partitions: how rows that lie in one place become a population of clients, and a look at what came of it.

Each takes arrays `x` and `y`, or a population whose rows are dealt anew. Where the data say whose row is whose,
that is the partition: `Population.from_arrays(x, y, groups=...)`.
"""

from shoal.data.partition.picture import picture as picture
from shoal.data.partition.picture import summary as summary
from shoal.data.partition.rules import dirichlet as dirichlet
from shoal.data.partition.rules import dirichlet_by_class as dirichlet_by_class
from shoal.data.partition.rules import iid as iid
from shoal.data.partition.rules import lognormal as lognormal
from shoal.data.partition.rules import power_law as power_law
from shoal.data.partition.rules import shards as shards
from shoal.data.partition.rules import sizes as sizes
