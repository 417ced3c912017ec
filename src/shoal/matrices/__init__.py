"""How noise may be correlated between rounds: matrices fitted to a schedule, drawn from row by row."""

from shoal.matrices.banded import Banded as Banded
from shoal.matrices.buffered import Blt as Blt
from shoal.matrices.matrix import Matrix as Matrix
from shoal.matrices.tree import Tree as Tree
