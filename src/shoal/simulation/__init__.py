from shoal.simulation.compiled import CompiledRuntime as CompiledRuntime
from shoal.simulation.evaluation import Evaluation as Evaluation
from shoal.simulation.evaluation import evaluate as evaluate
from shoal.simulation.history import History as History
from shoal.simulation.local import LocalRuntime as LocalRuntime
from shoal.simulation.simulate import Result as Result
from shoal.simulation.simulate import simulate as simulate
