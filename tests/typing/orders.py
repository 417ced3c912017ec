from shoal import *
from shoal.matrices import Blt

ok1 = Clip(1.0) >> PlainSum() >> Gaussian(1.0, clients=100)
ok2 = Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=50) >> Gaussian(1.0, clients=100)
ok3 = Clip(1.0) >> Weigh(500) >> PlainSum() >> Gaussian(1.0, clients=100)
ok4 = TopK(0.1) >> PlainSum() >> Mean()
ok5 = Clip(1.0) >> TopK(0.1) >> Quantize(1e-3) >> SecureSum(threshold=50) >> Mean()
ok6 = Remember(TopK(0.1)) >> Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=50) >> Gaussian(1.0, clients=100)
ok7 = Clip(1.0) >> Quantize(1e-3) >> NoiseShare(1.0, at_least=80) >> SecureSum(threshold=80) >> Over(clients=100)
ok8 = TopK(0.1) >> Collect() >> Median()
ok9 = Clip(1.0) >> Collect() >> Median()
ok10 = PlainSum() >> Mean()
ok11 = Collect() >> Median()
ok12 = Remember(TopK(0.1)) >> Clip(1.0) >> Weigh(500) >> Quantize(1e-3) >> SecureSum(threshold=50) >> Mean()
ok13 = Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=50) >> DiscreteGaussian(1.0, clients=100)
ok14 = Clip(1.0) >> Quantize(1e-3) >> PlainSum() >> DiscreteGaussian(1.0, clients=100)
ok15 = Clip(1.0) >> LocalGaussian(1.0, 1e-6) >> PlainSum() >> Over(clients=100)
ok16 = RandomizedResponse(1.0) >> PlainSum() >> Over(clients=100)
ok17 = Clip(1.0) >> TopK(0.1) >> LocalLaplace(1.0, norm=1.0) >> PlainSum() >> Over(clients=100)
ok18 = Clip(1.0) >> PlainSum() >> MatrixGaussian(2.0, clients=100, matrix=Blt(200, 20))
ok19 = Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=50) >> MatrixGaussian(2.0, clients=100, matrix=Blt(200, 20))
ok20 = Remember(TopK(0.1)) >> AdaptiveClip(1.0) >> Weigh(500) >> Quantize(1e-3) >> SecureSum(threshold=50) >> Mean()
ok21 = Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=50) >> Skellam(1.0, clients=100)
bad1 = Quantize(1e-3) >> Clip(1.0)  # clip after quantize
bad2 = Quantize(1e-3) >> SecureSum(threshold=50)  # nothing bounds the range
bad3 = Clip(1.0) >> SecureSum(threshold=50)  # floats cannot be masked
bad4 = TopK(0.1) >> PlainSum() >> Gaussian(1.0, clients=100)  # noise with no bound
bad5 = Clip(1.0) >> Gaussian(1.0, clients=100)  # noise before the sum
bad6 = PlainSum() >> Clip(1.0)  # clip after the sum
bad7 = Clip(1.0) >> Quantize(1e-3) >> TopK(0.1)  # sparsify the grid
bad8 = Clip(1.0) >> PlainSum() >> Mean() >> Gaussian(1.0, clients=9)  # noise after the mean
bad9 = Clip(1.0) >> Remember(TopK(0.1)) >> Quantize(1e-3)  # memory added after the bound
bad10 = Clip(1.0) >> Quantize(1e-3) >> NoiseShare(1.0, at_least=80) >> PlainSum()  # each share seen alone
bad11 = Clip(1.0) >> Quantize(1e-3) >> NoiseShare(1.0, at_least=80) >> SecureSum(threshold=80) >> Mean()  # unweighted
bad12 = Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=80) >> Over(clients=100)  # no noise anywhere
bad13 = Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=80) >> Median()  # a median needs each update
bad14 = Clip(1.0) >> Collect() >> Gaussian(1.0, clients=100)  # noise on a bag
bad15 = Clip(1.0) >> NoiseShare(1.0, at_least=80)  # integer noise on floats
bad16 = Clip(1.0) >> PlainSum() >> DiscreteGaussian(1.0, clients=100)  # integer noise on floats
bad17 = TopK(0.1) >> LocalGaussian(1.0, 1e-6)  # noise with no bound
bad18 = RandomizedResponse(1.0) >> PlainSum() >> Mean()  # a divisor that could tell something
bad19 = LocalLaplace(1.0, norm=1.0) >> SecureSum(threshold=50)  # floats cannot be masked
bad20 = RandomizedResponse(1.0) >> Collect()  # nothing but a sum of these
bad21 = Clip(1.0) >> LocalGaussian(1.0, 1e-6) >> TopK(0.1)  # a step after the noise
bad22 = Clip(1.0) >> PlainSum() >> Over(clients=100)  # no noise anywhere
bad23 = Clip(1.0) >> Quantize(1e-3) >> LocalLaplace(1.0, norm=1.0)  # float noise on integers
bad24 = Clip(1.0) >> LocalGaussian(1.0, 1e-6) >> PlainSum() >> Gaussian(1.0, clients=9)  # noise twice
bad25 = TopK(0.1) >> PlainSum() >> MatrixGaussian(2.0, clients=100, matrix=Blt(200, 20))  # noise with no bound
