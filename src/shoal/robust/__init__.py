from shoal.robust.median import Median as Median
