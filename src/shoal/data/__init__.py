from shoal.data.population import Population as Population
from shoal.data.standardize import Standardizer as Standardizer
from shoal.data.standardize import standardize_alone as standardize_alone
from shoal.data.standardize import standardizer as standardizer
