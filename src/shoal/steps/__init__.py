from shoal.steps.clip import Clip as Clip
from shoal.steps.noise import NoiseShare as NoiseShare
from shoal.steps.quantize import Quantize as Quantize
from shoal.steps.remember import Remember as Remember
from shoal.steps.rotate import Rotate as Rotate
from shoal.steps.round import Round as Round
from shoal.steps.sparsify import TopK as TopK
from shoal.steps.weigh import Weigh as Weigh
