from shoal.models.jax import JaxModel as JaxModel
from shoal.models.jax import from_functions as from_functions
from shoal.models.zoo import cnn as cnn
from shoal.models.zoo import linear as linear
from shoal.models.zoo import logistic as logistic
from shoal.models.zoo import mlp as mlp
