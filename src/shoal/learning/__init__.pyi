from .builders import build_fed_eval as build_fed_eval
from .builders import build_fed_sgd as build_fed_sgd
from .builders import build_unweighted_fed_avg as build_unweighted_fed_avg
from .builders import build_unweighted_fed_prox as build_unweighted_fed_prox
from .builders import build_weighted_fed_avg as build_weighted_fed_avg
from .builders import build_weighted_fed_prox as build_weighted_fed_prox
from .evaluation import EvaluationProcess as EvaluationProcess
from .process import LearningProcess as LearningProcess
