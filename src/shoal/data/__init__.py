from shoal.data.hospitals import hospitals as hospitals
from shoal.data.population import Population as Population
from shoal.data.standardize import OwnStandardizer as OwnStandardizer
from shoal.data.standardize import Standardizer as Standardizer
from shoal.data.standardize import own_standardizer as own_standardizer
from shoal.data.standardize import standardizer as standardizer
