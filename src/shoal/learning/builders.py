"""The builders of learning processes, with the names and the order of arguments of TensorFlow Federated."""

from __future__ import annotations

from typing import Any, Literal

from shoal.aggregation import Aggregation
from shoal.algorithms import FedAvg, FedProx, mean
from shoal.learning.evaluation import EvaluationProcess
from shoal.learning.given import model_of, optimizer_of
from shoal.learning.process import LearningProcess
from shoal.optimizers import sgd

BatchSize = int | Literal["all"] | None


def build_weighted_fed_avg(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = None,
    *,
    epochs: int = 1,
    batch_size: BatchSize = None,
    order: Literal["shuffled", "given"] = "shuffled",
    loss: Any = None,
    aggregation: Aggregation | None = None,
) -> LearningProcess:
    """A process of federated averaging, clients weighed by their examples (McMahan et al. 2017, algorithm 1).

    `model_fn` is a function without arguments that gives a model of Shoal, a Keras model or a torch module, or such
    a model itself; `loss` goes with the latter two. The optimizers are shoal.sgd(0.1) and its like, Keras' SGD, Adam,
    Adagrad or RMSprop, or functions that give one. Without one for the server the mean update is added as it is.
    Datasets have no batches here: `epochs`, `batch_size` (32 unless said) and `order` say how a client trains.
    `aggregation` takes the place of the weighted mean.

    >>> import shoal
    >>> process = build_weighted_fed_avg(lambda: shoal.models.logistic(3), lambda: shoal.sgd(0.1))
    >>> process.get_hparams(process.initialize())
    {'client_work': {'learning_rate': 0.1}, 'finalizer': {}}
    """
    work: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "order": order, "aggregation": aggregation}
    optimizers = _optimizers(client_optimizer_fn, server_optimizer_fn)
    return LearningProcess(FedAvg(model_of(model_fn, loss), **optimizers, **work))


def build_unweighted_fed_avg(
    model_fn: Any,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = None,
    *,
    epochs: int = 1,
    batch_size: BatchSize = None,
    order: Literal["shuffled", "given"] = "shuffled",
    loss: Any = None,
) -> LearningProcess:
    """As `build_weighted_fed_avg`, but every client counts alike.

    >>> import shoal
    >>> print(build_unweighted_fed_avg(shoal.models.logistic(3), shoal.sgd(0.1)).algorithm.aggregation)
    PlainSum() >> Mean()
    """
    return build_weighted_fed_avg(
        model_fn, client_optimizer_fn, server_optimizer_fn, epochs=epochs, batch_size=batch_size, order=order,
        loss=loss, aggregation=mean(),
    )  # fmt: skip


def build_weighted_fed_prox(
    model_fn: Any,
    proximal_strength: float,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = None,
    *,
    epochs: int = 1,
    batch_size: BatchSize = None,
    order: Literal["shuffled", "given"] = "shuffled",
    loss: Any = None,
    aggregation: Aggregation | None = None,
) -> LearningProcess:
    """As `build_weighted_fed_avg`, with a pull of `proximal_strength` towards the model that was sent (Li et al.
    2020, algorithm 2).

    >>> import shoal
    >>> build_weighted_fed_prox(shoal.models.logistic(3), 0.1, shoal.sgd(0.1)).algorithm.mu
    0.1
    """
    work: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "order": order, "aggregation": aggregation}
    optimizers = _optimizers(client_optimizer_fn, server_optimizer_fn)
    return LearningProcess(FedProx(model_of(model_fn, loss), mu=proximal_strength, **optimizers, **work))


def build_unweighted_fed_prox(
    model_fn: Any,
    proximal_strength: float,
    client_optimizer_fn: Any,
    server_optimizer_fn: Any = None,
    *,
    epochs: int = 1,
    batch_size: BatchSize = None,
    order: Literal["shuffled", "given"] = "shuffled",
    loss: Any = None,
) -> LearningProcess:
    """As `build_weighted_fed_prox`, but every client counts alike.

    >>> import shoal
    >>> build_unweighted_fed_prox(shoal.models.logistic(3), 0.1, shoal.sgd(0.1)).algorithm.mu
    0.1
    """
    return build_weighted_fed_prox(
        model_fn, proximal_strength, client_optimizer_fn, server_optimizer_fn, epochs=epochs, batch_size=batch_size,
        order=order, loss=loss, aggregation=mean(),
    )  # fmt: skip


def build_fed_sgd(
    model_fn: Any, server_optimizer_fn: Any = None, *, loss: Any = None, aggregation: Aggregation | None = None
) -> LearningProcess:
    """A process of FedSGD: each client sends the gradient over all its examples (McMahan et al. 2017, section 2).

    The server's optimizer takes a step along their mean, weighed by examples; gradient descent at 0.1 unless said.

    >>> import shoal
    >>> build_fed_sgd(shoal.models.logistic(3), shoal.sgd(0.5)).algorithm.steps
    1
    """
    server = optimizer_of(server_optimizer_fn, "server_optimizer_fn") or sgd(0.1)
    model = model_of(model_fn, loss)
    # One step at rate 1 over all examples moves the model by minus the gradient.
    return LearningProcess(
        FedAvg(model, steps=1, batch_size="all", client_optimizer=sgd(1.0), server_optimizer=server,
               aggregation=aggregation)  # type: ignore[arg-type]
    )  # fmt: skip


def build_fed_eval(model_fn: Any, *, loss: Any = None) -> EvaluationProcess:
    """A process of federated evaluation.

    >>> import shoal
    >>> build_fed_eval(shoal.models.logistic(3)).initialize().global_model_weights.shape
    (4,)
    """
    return EvaluationProcess(model_of(model_fn, loss))


def _optimizers(client: Any, server: Any) -> dict[str, Any]:
    return {
        "client_optimizer": optimizer_of(client, "client_optimizer_fn"),
        "server_optimizer": optimizer_of(server, "server_optimizer_fn"),
    }
