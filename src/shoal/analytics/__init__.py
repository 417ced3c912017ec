from shoal.analytics.statistics import MeanAndVariance as MeanAndVariance
from shoal.analytics.statistics import Statistics as Statistics
